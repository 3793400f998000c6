"""What a constructor leaves to chance, and two processes that make the same network."""

import pytest

from prune_nas.errors import UsageError
from prune_nas.nets.again import see

_HEAD = """
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.ways = nn.ModuleDict({name: nn.Linear(8, 6) for name in NAMES})
        self.order = ORDER
        self.head = nn.Linear(6 * len(NAMES), classes)

    def forward(self, x):
        x = self.conv(x).mean((2, 3))[:, self.order]
        return self.head(torch.cat([way(x) for way in self.ways.values()], 1))
"""


@pytest.fixture
def written(tmp_path):
    def write(names, order):
        path = tmp_path / "net.py"
        path.write_text(f"NAMES = {names}\n{_HEAD.replace('ORDER', order)}")
        return f"{path}:Net"

    return write


NAMES = [f"way {i}" for i in range(8)]  # of a set of eight, no two processes have the same order
LIST, SET = str(NAMES), "set(" + str(NAMES) + ")"


def test_what_a_global_seed_decides_is_the_same(written):
    see(written(LIST, "torch.from_numpy(np.random.permutation(8))"), input_shape=(3, 8, 8), classes=10, base_width=1.0)


@pytest.mark.parametrize(
    ("names", "order"),
    [(SET, "torch.arange(8)"), (LIST, "torch.from_numpy(np.random.default_rng().permutation(8))")],
)
def test_the_order_of_a_set_and_a_generator_of_its_own_are_refused(written, names, order):
    with pytest.raises(UsageError, match=r"is another network in another process: .* loop over a list or sorted"):
        see(written(names, order), input_shape=(3, 8, 8), classes=10, base_width=1.0)
