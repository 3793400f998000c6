"""Where networks come from, and what is said when they do not come."""

from __future__ import annotations

import sys

import pytest

from prune_nas.errors import MissingError, UsageError
from prune_nas.nets.models import sources
from prune_nas.nets.tracing import trace

USER = """
import helper
from torch import nn

NOT_CALLABLE = 3

def small(num_classes, base_width=1.0):
    width = round(8 * base_width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         helper.head(width, num_classes))

def fixed():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

def broken():
    raise RuntimeError("no weights here")

def number():
    return 3
"""


@pytest.fixture
def user(tmp_path):
    (tmp_path / "helper.py").write_text("from torch import nn\ndef head(i, o):\n    return nn.Linear(i, o)\n")
    path = tmp_path / "net.py"
    path.write_text(USER)
    yield path
    sys.modules.pop("helper", None)


def test_a_file_of_ones_own_with_a_neighbour_beside_it(user):
    traced = trace(f"{user}:small", classes=7, base_width=2.0)
    assert traced.space.classes == 7
    assert dict(traced.space.base) == {"0": 16}
    assert traced.space.model == f"{user}:small"
    assert str(user.parent) not in sys.path


def test_base_width_scales_the_slots_of_a_network_that_does_not_take_it(user):
    assert dict(trace(f"{user}:fixed", base_width=0.5).space.base) == {"0": 4}


@pytest.mark.parametrize(
    ("callable_", "message"),
    [
        ("smal", r"net.py has no callable 'smal'. Did you mean .*net.py:small\?"),
        ("NOT_CALLABLE", "must be a class or function that makes a network. Got int"),
        ("broken", r"broken\(\) raised RuntimeError: no weights here \(.*net.py:\d+: raise"),
        ("number", "must return a torch.nn.Module. Got int"),
    ],
)
def test_what_is_wrong_with_a_callable_is_said(user, callable_, message):
    with pytest.raises(UsageError, match=message):
        trace(f"{user}:{callable_}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nonsense_xyz", "ModuleNotFoundError: No module named 'nonsense_xyz' .*net.py:1"),
        ("def f(:", r"SyntaxError: .* \(.*net.py:1\)"),
        ("raise SystemExit(9)", r"SystemExit: 9 \(.*net.py:1: raise"),
        ("x = 1 / 0", r"ZeroDivisionError: division by zero \(.*net.py:1: x = 1 / 0\)"),
    ],
)
def test_a_file_that_raises_on_import_is_one_line(tmp_path, text, message):
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        trace(f"{tmp_path}/net.py:f")
    assert "\n" not in str(caught.value)


def test_an_installed_package(user):
    assert trace("torchvision.models:resnet18", classes=5, input_shape=(3, 64, 64)).space.classes == 5
    with pytest.raises(UsageError, match=r"there is no Python package 'torchvsion\.models'"):
        trace("torchvsion.models:resnet18")
    with pytest.raises(UsageError, match=r"there is no file nowhere/net\.py"):
        trace("nowhere/net.py:f")
    with pytest.raises(UsageError, match="cannot read --model ':x'"):
        trace(":x")


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "googlenet"])
def test_torchvision_by_name_without_heads_for_training_alone(name):
    traced = trace(f"torchvision:{name}", classes=12, input_shape=(3, 64, 64))
    assert traced.space.classes == 12
    assert not any("aux" in layer.name for layer in traced.space.layers)


def test_wrong_names_have_neighbours():
    with pytest.raises(UsageError, match="Did you mean torchvision:resnet18"):
        trace("torchvision:resnet19")


def test_timm_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingError, match=r"pip install 'prune-nas\[timm\]'"):
        trace("timm:resnet10t")


def test_which_names_run_code():
    assert [sources.runs_code(n) for n in ("vgg16", "torchvision:x", "timm:x", "a.b:c", "a/b.py:c")] == [False] * 3 + [
        True
    ] * 2
    assert sources.runs_code("torchvision:/evil.py:net")  # a file in a folder of that name
