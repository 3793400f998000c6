"""Every format computes what the network does, and the Python file needs neither this tool nor anything but torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import fx, nn

from prune_nas.errors import MissingError, UsageError
from prune_nas.nets.export import write
from prune_nas.nets.export.python import to_python
from prune_nas.nets.export.write import FORMATS, TOLERANCE, export
from prune_nas.nets.specs import load, read_spec
from prune_nas.nets.tracing import trace

from . import networks
from .test_tracing import halves

SMALL = (3, 8, 8)


class Inside(nn.Module):
    """Attention, tensors of one's own, constants and slices; names that a file must not clash with."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4, padding_mode="reflect", padding=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.register_buffer("grid", torch.arange(10.0).reshape(1, 10, 1))
        self.F, self.out = nn.Linear(8, 6), nn.Linear(6, 10)

    def forward(self, x):
        n = x.shape[0]
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(n, -1, -1), x], dim=1) + self.grid
        y, _ = self.attention(x, x, x, need_weights=False)
        x = x - 0.5 * y
        return self.out(-self.F(x[:, 0]).clamp(min=-3.0))


def written(source, state, path):
    file = path / "model.py"
    file.write_text(source)
    torch.save(state, path / "state.pt")
    return file


@pytest.mark.parametrize("make", [*networks.ALL, Inside])
def test_the_file_computes_the_same_without_this_tool(make, tmp_path):
    traced = trace(make, input_shape=SMALL)
    network = traced.build(halves(traced.space), seed=0)
    network(torch.randn(8, *SMALL, generator=torch.Generator().manual_seed(1)))  # running statistics of some kind
    source, state = to_python(network, "it", SMALL, 'with a """quote""" \\ inside')
    written(source, state, tmp_path)
    x = torch.randn(5, *SMALL, generator=torch.Generator().manual_seed(0))
    torch.save(x, tmp_path / "x.pt")
    program = (
        "import sys, torch\nsys.path.insert(0, '.')\nfrom model import Model\nm = Model()\n"
        "m.load_state_dict(torch.load('state.pt', weights_only=True))\n"
        "y = m.eval()(torch.load('x.pt', weights_only=True))\ntorch.save(y.detach(), 'y.pt')\n"
        "assert not {n for n in sys.modules if n.startswith(('prune_nas', 'torchvision', 'timm'))}\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "y.pt", weights_only=True), network.eval()(x))


def test_the_file_reads_like_the_network():
    source, state = to_python(
        trace(networks.Residual, input_shape=SMALL).build(seed=0), "Residual", SMALL, "Two blocks."
    )
    lines = [line.strip() for line in source.splitlines()]
    assert lines[0] == '"""Two blocks.'
    assert "self.stem = nn.Conv2d(3, 16, kernel_size=(3, 3), padding=(1, 1), bias=False)" in lines
    assert "self.norm = nn.BatchNorm2d(16)" in lines
    assert "self.head.linear = nn.Linear(16, 10)" in lines
    assert "x = self.b1.layer0(relu_1)" in lines
    assert "b1.layer0.weight" in state
    assert max(map(len, source.splitlines())) <= 120


def test_names_that_python_does_not_take_are_changed():
    network = nn.Sequential()
    network.add_module("block1-0", nn.Conv2d(3, 4, 3))
    network.add_module("the head", networks.Head(4))
    source, state = to_python(network, "it", SMALL, "x")
    assert "self.block1_0 = nn.Conv2d(3, 4, kernel_size=(3, 3))" in source
    assert "self.the_head.linear = nn.Linear(4, 10)" in source
    assert {"block1_0.weight", "the_head.linear.bias"} <= set(state)


def test_what_torch_alone_cannot_say_is_refused_by_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), networks.Head(8)

        def forward(self, x):
            return self.head(own_step(self.conv(x)))

    with pytest.raises(UsageError, match="calls own_step, which a file that imports torch alone cannot name"):
        to_python(Net(), "Net", SMALL, "x")


@fx.wrap
def own_step(x):
    return x


@pytest.mark.parametrize("name", FORMATS)
def test_a_searched_net_in_every_format(searched, tmp_path, name):
    made = export(searched / "best.json", tmp_path / "out", [name])[name]
    assert made["difference"] <= TOLERANCE
    assert all(file.startswith(str(tmp_path)) for file in made["files"])


def test_export_is_a_command(searched, cli):
    code, out, err = cli("export", searched / "best.json", "--format", "state,python", "--json")
    assert code == 0, err
    made = json.loads(out)["formats"]
    assert set(made) == {"state", "python"}
    again = load(made["state"]["files"][0])
    x = torch.randn(2, *read_spec(searched / "best.json")["input_shape"])
    with torch.no_grad():
        torch.testing.assert_close(again(x), load(searched / "best.json")(x))


def test_bad_input_is_one_message(searched, tmp_path, cli):
    code, _, err = cli("export", searched / "best.json", "--format", "onxx")
    assert code == 2
    assert "Did you mean onnx" in err
    (searched / "best.safetensors").unlink()
    code, _, err = cli("export", searched / "best.json")
    assert code == 3
    assert "no weights at" in err
    (searched / "best.safetensors").write_bytes(b"no")
    code, _, err = cli("export", searched / "best.json")
    assert code == 2
    assert "does not hold the weights" in err
    (tmp_path / "spec.json").write_text("{")
    code, _, err = cli("export", tmp_path / "spec.json")
    assert code == 2
    assert "is not a spec" in err


def test_a_missing_package_is_named(searched, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingError, match=r"pip install 'prune-nas\[onnx\]'"):
        export(searched / "best.json", tmp_path, ["onnx"])


def test_a_spec_that_names_code_runs_it_only_when_told_to(searched, tmp_path, cli):
    spec = json.loads((searched / "best.json").read_text())
    (tmp_path / "net.py").write_text("raise SystemExit('it ran')")
    spec["model"] = f"{tmp_path}/net.py:make"
    (searched / "best.json").write_text(json.dumps(spec))
    code, _, err = cli("export", searched / "best.json")
    assert code == 2
    assert "If you trust it, add --model" in err
    assert "it ran" not in err


def test_code_that_a_person_named_stands_for_the_one_of_the_spec(searched, tmp_path):
    spec = json.loads((searched / "best.json").read_text())
    (tmp_path / "moved.py").write_text(
        "from prune_nas.nets import models\n\n\ndef make(classes, base_width):\n"
        "    return models.create('vgg11', classes, base_width)\n"
    )
    (searched / "best.json").write_text(json.dumps({**spec, "model": f"{tmp_path}/gone.py:make"}))
    written = export(searched / "best.json", tmp_path / "out", ["state", "python"], model=f"{tmp_path}/moved.py:make")
    assert set(written) == {"state", "python"}


@pytest.mark.parametrize(
    "changes",
    [
        {"input_shape": None},
        {"input_shape": "3"},
        {"input_shape": [3, "32", 32]},
        {"widths": {"conv1_1": "abc"}},
        {"widths": {"conv1_1": 3.5}},
        {"widths": []},
        {"classes": None},
        {"base_width": "1"},
    ],
)
def test_a_spec_of_the_wrong_kinds_is_said_to_be_none(searched, changes):
    spec = json.loads((searched / "best.json").read_text())
    (searched / "best.json").write_text(json.dumps({**spec, **changes}))
    with pytest.raises(UsageError, match="is not a spec"):
        read_spec(searched / "best.json")


def test_a_spec_without_its_costs_is_written_as_python_too(searched, tmp_path):
    spec = json.loads((searched / "best.json").read_text())
    (searched / "best.json").write_text(json.dumps({k: v for k, v in spec.items() if k not in ("macs", "params")}))
    export(searched / "best.json", tmp_path, ["python"])
    assert "with found widths: 10 classes." in (tmp_path / "model.py").read_text()


def test_what_torch_cannot_export_is_one_message_and_leaves_no_file(tmp_path):
    class TakesAll(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, *images):
            return self.head(self.conv(images[0]).mean((2, 3)))

    with pytest.raises(
        UsageError, match=r"torch cannot export TakesAll as pt2: .* Export it as state or python instead"
    ):
        write._pt2(TakesAll().eval(), {"model": "TakesAll", "input_shape": [3, 8, 8]}, tmp_path, None)
    assert list(tmp_path.iterdir()) == []
