"""Running statistics are those of the trained network at its end, however slow their momentum is."""

import pytest
from torch import nn

from prune_nas.training.batchnorm import momentum_for, quicken
from prune_nas.training.loop import fit
from tests.training.test_loop import QUICK, network


@pytest.mark.parametrize(("least", "expected"), [(0.1, [0.1, 0.3, None]), (0.05, [0.05, 0.3, None]),
                                                 (5.0, [0.1, 0.3, None]), (0.001, [0.01, 0.3, None])])  # fmt: skip
def test_a_momentum_is_raised_to_pytorchs_default_at_most(least, expected):
    norms = [nn.BatchNorm2d(2, momentum=value) for value in (0.01, 0.3, None)]
    quicken(nn.Sequential(norms[0], nn.Sequential(*norms[1:]), nn.LayerNorm(2)), least)
    assert [norm.momentum for norm in norms] == expected


@pytest.mark.parametrize(("steps", "expected"), [(400, 0.05), (4000, 0.005), (0, 20)])
def test_a_training_is_twenty_times_as_long_as_its_statistics_look_back(steps, expected):
    assert momentum_for(steps) == expected


def test_a_short_training_is_measured_with_the_statistics_of_its_end(setting):
    net = network()
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.001
    list(fit(net, setting, QUICK, seed=0))
    assert {norm.momentum for norm in norms} == {0.1}
    x, _ = next(setting.data.train.batches(len(setting.data.train)))
    seen = []
    norms[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    net.eval()(x)
    mean = seen[0].mean((0, 2, 3))
    assert (norms[0].running_mean - mean).norm() < 0.6 * mean.norm()  # with a momentum of 0.001 it is 0.97
