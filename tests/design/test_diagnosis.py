import numpy as np
import pytest

from prune_nas.design.budget import Budget
from prune_nas.design.diagnosis import Supernet, _some, diagnose
from prune_nas.design.learning import Chance
from prune_nas.design.selection import select
from prune_nas.nets.tracing import trace


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "s0"), (5, "s0, s1, s2, s3, s4"), (6, "s0, s1, s2, s3 and 2 more"), (39, "s0, s1, s2, s3 and 35 more")],
)
def test_of_many_names_a_few_are_said(count, words):
    assert _some(tuple(f"s{i}" for i in range(count))) == words


@pytest.fixture(scope="module")
def space():
    return trace("vgg11", base_width=0.25).space


def scored(space, dead):
    """Scores of which that share is next to nothing."""
    rng = np.random.default_rng(0)
    return {s.name: np.where(rng.random(s.ceiling) < dead, 1e-7, rng.uniform(0.2, 0.9, s.ceiling)) for s in space.slots}


def read(space, dead, accuracy, budget="macs=0.3"):
    scores = scored(space, dead)
    chosen = {budget: select(space, scores, Budget.parse(budget).limits(space), by="per-cost")}
    return diagnose(space, scores, supernet(accuracy), chosen)


def supernet(accuracy, gamma=1.0):
    return Supernet(1e-3, gamma, accuracy, Chance(0.1, 1000), 6)


def test_a_supernet_that_only_guesses_teaches_nothing(space):
    found = read(space, 0.3, 0.1)
    assert not found.separated
    assert not found.learnt
    assert found.sentences[0].startswith("the supernet did not learn (10.0 % on validation, guessing gives 10.0 %)")
    assert "--supernet-epochs was 6" in found.sentences[0]
    assert "--strength 0.0003" in found.sentences[0]
    assert read(space, 0.3, 0.6).separated
    assert read(space, 0.3, None).separated


def test_a_cut_among_dead_channels_is_said(space):
    assert any("more than carry anything" in s for s in read(space, 0.9, 0.6, "macs=0.6").sentences)
    assert not any("more than carry" in s for s in read(space, 0.3, 0.6, "macs=0.3").sentences)


def test_dead_is_measured_against_where_gamma_started(space):
    """All gammas at 1e-7: measured against the largest score none would count as dead."""
    scores = {s.name: np.full(s.ceiling, 1e-7) for s in space.slots}
    found = diagnose(space, scores, supernet(0.6), {})
    assert found.dead == 1.0
    assert not found.separated
    assert found.sentences[-1].startswith("nearly every channel is dead: take a weaker penalty (--strength 0.0005")
    half = {s.name: np.full(s.ceiling, 0.012) for s in space.slots}
    assert diagnose(space, half, supernet(0.6, gamma=0.5), {}).dead == 0.0
    assert diagnose(space, half, supernet(0.6, gamma=1.0), {}).dead == 1.0


def test_a_network_without_gamma_is_not_judged_by_it(space):
    found = diagnose(space, scored(space, 0.3), supernet(0.6, gamma=None), {})
    assert found.sentences == ("the network has no BatchNorm: its channels are scored by the norms of their weights",)
