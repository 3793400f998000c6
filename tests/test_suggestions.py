"""What an error message suggests is accepted: networks, data sets, budgets, settings."""

import re

import pytest
from PIL import Image

from prune_nas.config import resolve
from prune_nas.errors import UsageError

NETWORKS = """
from torch import nn


class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3)

    def forward(self, x):
        return self.conv(x)


class MyNet(nn.Module):
    def __init__(self, num_classes=6):
        super().__init__()
        self.body, self.head = nn.Sequential(Block(3, 8), nn.ReLU()), nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def small(classes):
    return MyNet(classes)


def load(folder, *, size):
    return folder


def main():
    print("trains")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a file of networks and a folder of images."""
    (tmp_path / "mynet.py").write_text(NETWORKS)
    (tmp_path / "train.py").write_text("def main():\n    print('trains')\n")
    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32), (60 * number, 0, 0)).save(
                    tmp_path / "photos" / split / label / f"{number}.png"
                )
    monkeypatch.chdir(tmp_path)


def suggested(message):
    """What a message names after `did you mean`, or after a flag."""
    meant = re.search(r"[Dd]id you mean ([^?]+)\?", message)
    return meant[1].split(" or ") if meant else re.findall(r"use --dataset (\S+)", message)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("resnet50", {"timm:resnet50", "torchvision:resnet50"}),
        ("timm:resnet_50", {"timm:resnet50"}),
        ("mobilenetv3_small", {"torchvision:mobilenet_v3_small"}),
        ("vgg61", {"vgg16"}),
        ("mynet.py", {"mynet.py:MyNet", "mynet.py:small"}),
        ("mynet", {"mynet.py:MyNet", "mynet.py:small"}),
        ("MyNet", {"mynet.py:MyNet"}),
        ("mynet.MyNet", {"mynet.py:MyNet"}),
        ("mynet.py:MyNett", {"mynet.py:MyNet"}),
        ("mynet.py:smal", {"mynet.py:small"}),
    ],
)
def test_a_network_that_is_suggested_is_there(cli, here, wrong, expected):
    code, _, err = cli("inspect", "--model", wrong, "--image-size", 32)
    found = suggested(err)
    assert code == 2
    assert expected <= set(found)
    assert len(found) <= 3
    for name in found:
        code, out, err = cli("inspect", "--model", name, "--image-size", 32)
        assert code == 0, (name, err)
        assert name in out


def test_parts_of_networks_and_scripts_are_not_suggested(cli, here):
    for name in ("mynet.py", "train.py", "mynet.py:Blok", "nothing-like-it"):
        _, _, err = cli("inspect", "--model", name, "--image-size", 32)
        assert not re.search("Block|load|main", " ".join(suggested(err)))
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("photos", ["folder:photos"]),
        ("folder:photos/train", ["folder:photos"]),
        ("folder:.", ["folder:photos"]),
        ("digit", ["digits"]),
    ],
)
def test_a_data_set_that_is_suggested_is_there(cli, here, wrong, expected):
    code, _, err = cli("inspect", "--model", "vgg11", "--dataset", wrong)
    assert code == 2
    assert suggested(err) == expected
    code, out, err = cli("inspect", "--model", "vgg11", "--dataset", *suggested(err))
    assert code == 0, err
    assert "vgg11" in out


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("latency=3", "latency=3ms"),
        ("latency=3MS", "latency=3ms"),
        ("macs=40%", "macs=0.4"),
        ("40%", "macs=0.4"),
        ("0.4", "macs=0.4"),
        ("mac=0.4", "macs=0.4"),
        ("flops=0.4", None),
        ("MACs=0.4", "macs=0.4"),
        ("param=1.5M", "params=1.5M"),
        ("macs=20m", "macs=20M"),
        ("macs=0.4,params=20%", "params=0.2"),
    ],
)
def test_a_budget_that_is_suggested_can_be_asked_for(cli, wrong, expected):
    code, _, err = cli("inspect", "--model", "vgg11", "--budget", wrong)
    assert code == 2
    assert suggested(err) == ([expected] if expected else [])
    if expected and "latency" not in expected:
        assert cli("inspect", "--model", "vgg11", "--budget", expected)[0] == 0
    elif expected:
        resolve({"model": "vgg11", "dataset": "digits", "budget": (expected,)})


def test_a_budget_below_the_smallest_network_is_answered_with_one_that_fits(cli):
    code, _, err = cli("inspect", "--model", "vgg11", "--budget", "macs=0.00001")
    assert code == 4
    (least,) = re.findall(r"at least (\S+),", err)
    assert cli("inspect", "--model", "vgg11", "--budget", least)[0] == 0


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [("preset", "labtop"), ("recipe", "fats"), ("arms", ("fond",)), ("schedules", ("scratch-f",))],
)
def test_a_setting_that_is_suggested_is_taken(setting, wrong):
    asked = {"model": "vgg11", "dataset": "digits"}

    def settled(value):
        from prune_nas.search.setup import recipe_of

        config = resolve({**asked, setting: value})
        recipe_of(config, 1)

    with pytest.raises(UsageError) as caught:
        settled(wrong)
    found = suggested(str(caught.value))
    assert found
    for value in found:
        settled((value,) if isinstance(wrong, tuple) else value)
