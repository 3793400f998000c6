import pytest

from prune_nas.design.ledger import scratch_b_epochs, total, train_macs
from prune_nas.design.records import Expense
from tests.design.spaces import vgg
from tests.design.test_space import named


def test_scratch_b_of_vgg16_a_lasts_243_epochs():
    """Li et al. 2017 and the released scratch-B code: VGG-16-A cuts 34.2 % of the macs, so 160 epochs become 243."""
    space = vgg(16)
    a = named(space, (32, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256))
    base, small = space.cost(space.base).macs, space.cost(a).macs
    assert 1 - small / base == pytest.approx(0.342, abs=5e-4)
    assert scratch_b_epochs(160, base, small) == 243


def test_a_training_costs_three_forward_passes_an_image():
    assert train_macs(macs=7, images=10, epochs=2) == 420


def test_total_sums_by_budget_phase_and_arm():
    items = [Expense("b", "finals", "found", 1, 5, 1.5), Expense("b", "finals", "found", 1, 7, 1.0),
             Expense("", "supernet", "", 1, 3, 2.0)]  # fmt: skip
    assert total(items) == [Expense("b", "finals", "found", 2, 12, 2.5), Expense("", "supernet", "", 1, 3, 2.0)]
