"""Two processes that train one network: the same as one process, to rounding."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from prune_nas.errors import UsageError
from prune_nas.training.data import load
from prune_nas.training.loop import Setting, accuracy, fit
from prune_nas.training.precision import Precision
from prune_nas.training.recipe import recipe
from prune_nas.training.team import ALONE, _forward, join, team

# What each process of the team runs; `{}` is a folder.
SCRIPT = """
import json, os, sys, time, torch
from pathlib import Path
from safetensors.torch import save_file
from tests.training.test_team import epochs_of, network
from prune_nas.training.team import join, receive, send

folder, checkpoint = Path(sys.argv[1]), sys.argv[2] == "kept"
mine = join()
torch.set_num_threads(1)
net = network()
(folder / f"pid{mine.rank}").write_text(str(os.getpid()))

def note(epoch):
    (folder / f"epoch{epoch.number}").touch()
    if checkpoint and epoch.number == 2 and mine.rank == 1 and not (folder / "again").exists():
        time.sleep(120)  # until it is killed, while the other waits for it

done, right = epochs_of(net, folder / "checkpoint" if checkpoint else None, note)
if mine.rank == 0:
    send({"words": "wörds"})
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / "net")
    (folder / "out.json").write_text(json.dumps([done, right]))
else:
    assert receive() == {"words": "wörds"}
os._exit(0)  # as the command line does
"""


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8),
        nn.Flatten(), nn.Linear(128, 16), nn.BatchNorm1d(16, momentum=None), nn.Linear(16, 10),
    )  # fmt: skip
    net.register_parameter("unused", nn.Parameter(torch.ones(3)))
    return net


def penalty(net, lr):
    net[1].weight.grad.add_(0.01 * net[1].weight.detach().sign())


def epochs_of(net, checkpoint, on_epoch=lambda epoch: None):
    data = load("digits", image_size=16, train_size=230, val_size=101)
    setting = Setting(data, torch.device("cpu"), Precision("fp32"))
    done = []
    for epoch in fit(net, setting, recipe("fast", 4), seed=3, penalty=penalty, checkpoint=checkpoint):
        done.append([epoch.number, epoch.train_loss, epoch.val_accuracy])
        on_epoch(epoch)
    return done, accuracy(net, data.val, setting)


def two(folder, checkpoint="none"):
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
               "--local-addr", "127.0.0.1", str(folder / "script.py"), str(folder), checkpoint]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def same(folder):
    """What the two gave is what one process gives."""
    net = network()
    done, right = epochs_of(net, None)
    theirs, their_right = json.loads((folder / "out.json").read_text())
    assert [n for n, _, _ in theirs] == [1, 2, 3, 4]
    for (_, loss, val), (_, their_loss, their_val) in zip(done, theirs, strict=True):
        assert their_loss == pytest.approx(loss, rel=1e-4)
        assert their_val == pytest.approx(val, abs=0.02)
    assert their_right == pytest.approx(right, abs=0.02)
    for name, value in load_file(folder / "net").items():
        torch.testing.assert_close(value, net.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_two_processes_train_as_one(tmp_path):
    process = two(tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    same(tmp_path)


@pytest.mark.parametrize("whom", ["rank", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_two_processes_killed_go_on_as_one_would(tmp_path, whom):
    process = two(tmp_path, "kept")
    while not (tmp_path / "epoch2").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    if whom == "torchrun":
        process.send_signal(signal.SIGTERM)  # it takes both along; SIGKILL would leave them
    else:
        os.kill(int((tmp_path / "pid1").read_text()), signal.SIGKILL)
    process.wait(60)
    assert not (tmp_path / "out.json").exists()
    (tmp_path / "again").touch()
    again = two(tmp_path, "kept")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    same(tmp_path)


@pytest.fixture
def team_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("team_of_one")
def test_a_layer_that_does_more_than_batchnorm_keeps_what_it_adds():
    layers = pytest.importorskip("timm.layers")
    norm = layers.BatchNormAct2d(4)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    x = torch.randn(6, 4, 5, 5)
    torch.testing.assert_close(_forward(norm)(x), norm(x), check_stride=False)  # a team of one: the whole batch is x
    norm.eval()
    torch.testing.assert_close(_forward(norm)(x), norm(x))


def test_a_batchnorm_with_a_forward_of_its_own_is_refused():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(UsageError, match="Doubled replaces `forward`"):
        _forward(Doubled(4))


def test_who_was_not_started_by_torchrun_is_alone(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert join() == team() == ALONE
