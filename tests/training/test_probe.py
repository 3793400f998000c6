from dataclasses import replace

import pytest
import torch
from torch import nn

from prune_nas.training import probe as probing
from prune_nas.training.loop import OutOfMemoryError
from prune_nas.training.probe import probe
from prune_nas.training.recipe import recipe

FAST = replace(recipe("fast", 1), batch=16)


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))


class Picky(nn.Module):
    """Its loss falls with the sign of a gradient alone: gradients are a millionth of what they should be."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        bright = x.mean((1, 2, 3)) * (self.weight * 1e-6 - self.weight.detach() * 1e-6 + self.weight.detach())
        return torch.stack([-bright, bright], 1)


class Constant(nn.Module):
    """It answers the same for every image."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return 0 * self.weight + x.new_zeros(len(x), 2)


def seeded(make):
    def build():
        torch.manual_seed(0)
        return make()

    return build


def test_sgd_is_kept_where_neither_is_better(setting):
    found = probe(seeded(linear), setting, FAST, seed=0, steps=30)
    assert found.optimizer == "sgd"
    assert set(found.losses) == {"sgd", "adamw"}
    assert found.steps == 30


def test_adamw_is_taken_where_sgd_stays_at_guessing(setting):
    found = probe(seeded(Picky), setting, FAST, seed=0, steps=60)
    assert found.losses["sgd"] == pytest.approx(torch.tensor(2.0).log().item(), abs=0.02)
    assert found.losses["adamw"] < found.losses["sgd"] - 0.01
    assert found.optimizer == "adamw"


def test_one_that_diverges_is_never_taken(setting):
    found = probe(seeded(linear), setting, replace(FAST, lr=1e30), seed=0, steps=30)
    assert found.losses["sgd"] == float("inf")
    assert found.optimizer == "adamw"


def test_where_memory_runs_out_half_the_batch_is_tried(setting, monkeypatch):
    batches, real = [], probing.steps_of

    def steps(network, setting, recipe, updates, **rest):
        batches.append(recipe.batch)
        if recipe.batch > 8:
            raise torch.OutOfMemoryError("full")
        return real(network, setting, recipe, updates, **rest)

    monkeypatch.setattr(probing, "steps_of", steps)
    assert probe(seeded(linear), setting, FAST, seed=0, steps=5).steps == 5
    assert set(batches) == {16, 8}
    with pytest.raises(OutOfMemoryError, match="Use a smaller --batch"):
        probe(seeded(linear), setting, replace(FAST, batch=64), seed=0, steps=5)


def test_where_nothing_is_learnt_the_steps_are_doubled(setting):
    found = probe(seeded(lambda: nn.Sequential(nn.Flatten(), Constant())), setting, FAST, seed=0, steps=5)
    assert found.optimizer == "sgd"
    assert found.steps == 5 + 10


def test_the_same_seed_finds_the_same_and_no_one_else_s_random_numbers_are_drawn(setting):
    network = linear()
    first, before = probe(lambda: network, setting, FAST, seed=3, steps=5), torch.get_rng_state()
    second = probe(seeded(linear), setting, FAST, seed=3, steps=20)
    assert second == probe(seeded(linear), setting, FAST, seed=3, steps=20)
    torch.set_rng_state(before)
    probe(lambda: network, setting, FAST, seed=3, steps=5)
    assert torch.equal(before, torch.get_rng_state())
    assert first.steps == 5
