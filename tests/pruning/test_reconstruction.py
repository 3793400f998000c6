"""ThiNet and LASSO selection: sums taken apart as the layers make them, choices against brute force."""

import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from prune_nas.errors import UsageError
from prune_nas.nets.inherit import inherit
from prune_nas.nets.tracing import trace
from prune_nas.pruning import reconstruction, regression, thinet


@pytest.fixture(scope="module")
def vgg():
    traced = trace("vgg11", base_width=0.125)
    network = traced.build(seed=0)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return traced.space, network, images


def test_terms_sum_to_what_the_reader_gives(vgg):
    space, network, images = vgg
    found = reconstruction.terms(space, network, images, places=400, seed=1)
    slot = space.slots[2]
    (reader,) = reconstruction.readers(space, slot)
    with reconstruction._inputs(network, {reader.name}) as seen:
        network.eval()
        network(images)
        network.train()
    layer = network.get_submodule(reader.name)
    with torch.no_grad():
        given = set(np.round(layer(seen[reader.name]).sub(0 if layer.bias is None else layer.bias.view(-1, 1, 1))
                             .double().numpy().ravel(), 4))  # fmt: skip
    sums = np.round(found[slot.name].sum(1), 4)
    near = sorted(given)
    for value in sums:
        place = np.searchsorted(near, value)
        assert min(abs(value - near[max(i, 0)]) for i in (place - 1, min(place, len(near) - 1))) < 2e-4


def test_the_last_slot_is_read_by_the_head(vgg):
    space, network, images = vgg
    found = reconstruction.terms(space, network, images, places=50, seed=1)
    slot = space.slots[-1]
    assert reconstruction.readers(space, slot)[0].kind == "linear"
    assert found[slot.name].shape == (50, slot.ceiling)


def test_places_follow_the_seed(vgg):
    space, network, images = vgg
    a, b, c = (reconstruction.terms(space, network, images, places=20, seed=seed)["conv1_1"] for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def _tiny(seed, correlated=True):
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(60, 6)) * [3, 1, 2, 0.5, 1.5, 0.1]
    if correlated:
        found[:, 4] = -found[:, 1] + 0.01 * rng.normal(size=60)  # the two cancel: they are best removed together
    return found


@pytest.mark.parametrize("seed", range(5))
def test_thinet_removes_the_one_channel_that_brute_force_would(seed):
    found = _tiny(seed)
    best = min(combinations(range(6), 5), key=lambda kept: reconstruction.error(found, kept))
    assert thinet.choose(found, 5) == best


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5])
def test_thinet_is_brute_force_where_terms_are_orthogonal(keep):
    found = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 6)))[0] * [3, 1, 2, 0.5, 1.5, 0.1]
    best = min(combinations(range(6), keep), key=lambda kept: reconstruction.error(found, kept))
    assert thinet.choose(found, keep) == best


def test_thinet_is_the_papers_algorithm_step_by_step():
    found = _tiny(3)
    gone: list[int] = []
    while len(gone) < 4:
        left = [c for c in range(6) if c not in gone]
        gone.append(min(left, key=lambda c: float((found[:, [*gone, c]].sum(1) ** 2).sum())))
    assert thinet.choose(found, 2) == tuple(c for c in range(6) if c not in gone)


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5])
def test_lasso_is_brute_force_where_terms_are_orthogonal(keep):
    """There the path takes the channels by their correlation with the output, which is each one's own energy."""
    found = np.linalg.qr(np.random.default_rng(1).normal(size=(40, 6)))[0] * [3, 1, 2, 0.5, 1.5, 0.1]
    best = min(combinations(range(6), keep), key=lambda kept: reconstruction.error(found, kept))
    assert regression.choose(found, keep) == best


@pytest.mark.parametrize("seed", range(5))
def test_lasso_solves_its_own_problem(seed):
    """The chosen coefficients meet the optimality conditions of the LASSO at some penalty."""
    found = _tiny(seed, correlated=False)
    y = found.sum(1)
    kept = regression.choose(found, 3)
    from sklearn.linear_model import Lasso

    for alpha in np.geomspace(1e-3, 10, 400):
        model = Lasso(alpha=alpha, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(found, y)
        if set(np.flatnonzero(np.abs(model.coef_) > 1e-9)) == set(kept):
            return
    pytest.fail("no penalty gives these channels")


def test_channels_that_add_nothing_fill_up():
    found = np.zeros((20, 4))
    found[:, 1] = np.arange(20)
    assert regression.choose(found, 2)[0:] == (0, 1)
    assert regression.choose(found, 4) == (0, 1, 2, 3)


def test_slots_that_no_full_layer_reads_are_refused():
    traced = trace("mobilenetv2", base_width=0.25)
    images = torch.randn(2, 3, 32, 32)
    with pytest.raises(UsageError, match="Use l1-norm or slimming"):
        reconstruction.terms(_only_depthwise(traced.space), traced.build(seed=0), images, places=4, seed=0)


def _only_depthwise(space):
    from dataclasses import replace

    return replace(space, layers=tuple(layer for layer in space.layers if layer.kind != "conv"))


# What is left is made to stand in for what went ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def doubled():
    """A net whose every slot holds each of its first channels twice: the copies can go without a loss."""
    traced = trace("vgg11", base_width=0.125)
    space, network = traced.space, traced.build(seed=0)
    kept = {slot.name: tuple(range(slot.ceiling // 2)) for slot in space.slots}
    with torch.no_grad():
        for module in network.modules():
            own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
            for value in own.values():
                for dim in range(min(value.ndim, 2)):
                    if value.shape[dim] in (3, 10):  # an image's channels, and the classes
                        continue
                    half = value.shape[dim] // 2
                    value.narrow(dim, half, half).copy_(value.narrow(dim, 0, half))
    images = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    narrow = inherit(space, network, traced.build({k: len(v) for k, v in kept.items()}, seed=0), kept)
    return space, network, narrow, kept, images


def _gap(source, narrow, images):
    with torch.no_grad():
        wanted, given = source.eval()(images), narrow.eval()(images)
    source.train(), narrow.train()
    return float((wanted - given).norm() / wanted.norm())


def test_refitting_makes_up_for_copies_that_went(doubled):
    space, network, narrow, kept, images = doubled
    narrow = copy.deepcopy(narrow)
    before = _gap(network, narrow, images)
    reconstruction.refit(space, network, narrow, kept, images, places=1500, seed=0)
    assert before > 0.02
    assert _gap(network, narrow, images) < 0.05 * before


@torch.no_grad()
def test_refitting_leaves_what_sees_nothing_as_it_was(doubled):
    space, network, narrow, kept, images = doubled
    network, narrow = copy.deepcopy(network), copy.deepcopy(narrow)
    for one in (network, narrow):
        for module in one.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.zero_()
                module.bias.zero_()
    before = copy.deepcopy(narrow.state_dict())
    reconstruction.refit(space, network, narrow, kept, images, places=50, seed=0)
    for key, value in narrow.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_rescaling_makes_up_for_copies_that_went(doubled):
    """Each kept channel counts for two."""
    space, network, narrow, kept, images = doubled
    narrow = copy.deepcopy(narrow)
    found = reconstruction.terms(space, network, images, places=1500, seed=0)
    reconstruction.rescale(space, narrow, found, kept)
    before, after = doubled[2].state_dict(), narrow.state_dict()
    scaled = [key for key in before if before[key].ndim > 1 and before[key].shape[1] != 3]
    for key in scaled:
        factors = (after[key] / before[key]).movedim(1, 0).flatten(1).median(1).values
        assert set(factors.round(decimals=2).tolist()) <= {1.0, 2.0}  # 1 where a channel gives nothing anywhere
        assert factors.mean() > 1.5
    assert len(scaled) == len(space.slots)
    assert _gap(network, narrow, images) < 1e-3


def test_where_nothing_goes_nothing_changes():
    traced = trace("vgg11", base_width=0.125)
    space, network = traced.space, traced.build(seed=0)
    kept = {slot.name: tuple(range(slot.ceiling)) for slot in space.slots}
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    same = copy.deepcopy(network)
    reconstruction.refit(space, network, same, kept, images, places=300, seed=0)
    reconstruction.rescale(space, same, reconstruction.terms(space, network, images, places=300, seed=0), kept)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], value, atol=1e-4, rtol=1e-3)
