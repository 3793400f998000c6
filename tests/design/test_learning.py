import math

import pytest
import torch

from prune_nas.design.learning import FEWEST, Chance, epochs_of, loss_of_guessing, too_short


@pytest.mark.parametrize(
    ("accuracy", "guessing", "images", "better"),
    [
        (0.10, 0.10, 1000, False),
        (0.14, 0.10, 1000, False),  # 0.10 + 0.05 * 0.9 = 0.145
        (0.15, 0.10, 1000, True),
        (0.18, 0.10, 40, False),  # two deviations of a guess on 40 images: 0.095
        (0.20, 0.10, 40, True),
        (0.66, 0.65, 10_000, False),  # five uneven classes: naming the most common one is no learning
        (0.70, 0.65, 10_000, True),
        (1.0, 0.99, 1000, True),
    ],
)
def test_better_than_guessing(accuracy, guessing, images, better):
    assert Chance(guessing, images).is_beaten(accuracy) is better


def test_the_deviation_is_that_of_a_binomial():
    edge = 0.25 + 2 * math.sqrt(0.25 * 0.75 / 48)
    assert Chance(0.25, 48).is_beaten(edge + 1e-9)
    assert not Chance(0.25, 48).is_beaten(edge - 1e-3)


def test_epochs_reach_the_steps():
    assert epochs_of(12, 0, 1125, 64) == 12
    assert epochs_of(12, 1000, 1125, 64) == 59  # 17 steps an epoch
    assert epochs_of(12, 1000, 10_000, 64) == 12
    assert epochs_of(2, 10, 20, 64) == 10


def test_what_is_too_short_is_said_with_the_repair():
    said = too_short({"epochs": 12, "supernet_epochs": 6, "trial_epochs": 40}, 1125, 64)
    assert len(said) == 1
    assert said[0].startswith("--supernet-epochs 6 is 102 steps of 64 images.")
    assert said[0].endswith("take --supernet-epochs 12 or more")
    assert FEWEST <= 12 * (1125 // 64)


@pytest.mark.parametrize(("guessing", "images"), [(0.5, 2), (2 / 3, 3), (0.6, 5), (0.9, 30)])
def test_a_perfect_network_is_never_called_guessing(guessing, images):
    chance = Chance(guessing, images)
    assert chance.is_beaten(1.0)
    assert not chance.is_beaten(1 - 1e-6)
    assert not Chance(1.0, images).is_beaten(1.0)


@pytest.mark.parametrize(
    ("counts", "smoothing", "loss"),
    [((5, 5), 0.0, math.log(2)), ((3, 3, 3), 0.1, math.log(3)), ((9, 1), 0.0, 0.3250830), ((10, 0), 0.0, 0.0)],
)
def test_the_loss_of_guessing_is_the_entropy_of_the_shares(counts, smoothing, loss):
    assert loss_of_guessing(counts, smoothing) == pytest.approx(loss, abs=1e-6)


def test_no_constant_answer_has_a_lower_smoothed_loss():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    answer = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.LBFGS([answer], max_iter=100)

    def loss():
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(answer.expand(10, 3), labels, label_smoothing=0.1)
        value.backward()
        return value

    optimiser.step(loss)
    assert loss().item() == pytest.approx(loss_of_guessing([6, 3, 1], 0.1), abs=1e-4)
