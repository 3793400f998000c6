from dataclasses import replace

import pytest
import torch
from torch import nn

from prune_nas.design.parts import Segment
from prune_nas.errors import UsageError
from prune_nas.nets.tracing import trace
from prune_nas.pruning.importance import channel_scores
from prune_nas.pruning.norms import levels_of, places
from prune_nas.pruning.penalties import (
    AllDeadError,
    Pressure,
    Pull,
    check,
    make,
    pressure_for,
    published,
    start_of,
    strength_for,
)
from prune_nas.training.recipe import recipe

SHORT, IMAGES = recipe("fast", 10), 1280  # 100 steps of 128 images


class Residual(nn.Module):
    """Two norms on one stream, and a norm after a concatenation with it."""

    def __init__(self):
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.b, self.nb = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.c, self.nc = nn.Conv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.wide = nn.BatchNorm2d(10)
        self.head = nn.Linear(10, 2)

    def forward(self, x):
        x = torch.relu(self.na(self.a(x)))
        x = x + self.nb(self.b(x))
        y = self.nc(self.c(x))
        z = self.wide(torch.cat([x, y], 1)).mean((2, 3))
        return self.head(z)


@pytest.fixture
def traced():
    return trace(Residual(), classes=2)


def test_every_gamma_of_a_slot_is_found(traced):
    space, net = traced.space, traced.build(seed=0)
    found = {slot: {(p.norm, p.start, p.stop) for p in spots} for slot, spots in places(space, net).items()}
    assert found == {
        "a": {("na", 0, 6), ("nb", 0, 6), ("wide", 0, 6)},
        "c": {("nc", 0, 4), ("wide", 6, 10)},
    }


def test_scores_are_the_mean_of_absolute_gammas(traced):
    net = traced.build(seed=0)
    with torch.no_grad():
        net.na.weight.fill_(-0.3)
        net.nb.weight.copy_(torch.arange(6.0))
        net.wide.weight.copy_(torch.arange(10.0))
    scores = channel_scores(traced.space, net)
    assert scores["a"].tolist() == pytest.approx([(0.3 + 2 * i) / 3 for i in range(6)])
    assert scores["c"].tolist() == pytest.approx([(1 + 6 + i) / 2 for i in range(4)])


def test_the_penalty_is_the_gradient_of_its_term(traced):
    net = traced.build(seed=0)
    with torch.no_grad():
        net.nb.weight.copy_(torch.tensor([-1.0, 0.0, 2.0, -0.1, 0.5, 0.0]))
    term = 0.01 * sum(n.weight.abs().sum() for n in (net.na, net.nb, net.nc, net.wide))
    term.backward()
    wanted = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    make(Pressure("l1", 0.01), traced.space, net, SHORT, IMAGES)(net, 0.1)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, wanted.get(name, torch.zeros_like(p)))


def test_cost_weights_follow_marginal_cost_and_average_one(traced):
    space, net = traced.space, traced.build(seed=0)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    make(Pressure("l1-macs", 1.0), space, net, SHORT, IMAGES)(net, 0.1)
    full = space.cost(space.widest).macs
    marginal = {s.name: full - space.cost({**space.widest, s.name: s.ceiling - 1}).macs for s in space.slots}
    got = {"a": net.na.weight.grad[0].item(), "c": net.nc.weight.grad[0].item()}
    assert got["a"] / got["c"] == pytest.approx(marginal["a"] / marginal["c"])
    assert (6 * got["a"] + 4 * got["c"]) / 10 == pytest.approx(1.0)


def test_no_penalty_is_none_and_a_wrong_name_is_named(traced):
    net = traced.build(seed=0)
    assert make(Pressure("none", 1.0), traced.space, net, SHORT, IMAGES) is None
    with pytest.raises(UsageError, match="l1-macs"):
        check("l1-mac", traced.space, net)


def test_a_network_without_any_gamma_is_an_error_with_the_repair():
    bare = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)))
    with pytest.raises(UsageError, match="Use --penalty none"):
        check("l1", bare.space, bare.build(seed=0))
    assert check("none", bare.space, bare.build(seed=0)) == check("auto", bare.space, bare.build(seed=0)) == {}


def test_a_slot_without_gamma_is_scored_by_its_weights_at_the_level_of_the_others():
    class Gated(nn.Module):
        """A squeeze-and-excitation's middle has no norm; a transposed convolution's weight lies the other way."""

        def __init__(self):
            super().__init__()
            self.a, self.n = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
            self.squeeze, self.excite = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)
            self.up = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = self.n(self.a(x))
            x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
            return self.head(self.up(x).mean((2, 3)))

    traced = trace(Gated(), classes=2)
    net = traced.build(seed=0)
    with torch.no_grad():
        net.n.weight.copy_(torch.arange(6.0))
        for i in range(4):
            net.squeeze.weight[i] = i + 1
            net.up.weight[:, i % 2][3 * (i // 2) : 3 * (i // 2) + 3] = 4 - i
    scores = channel_scores(traced.space, net)
    assert list(scores) == [slot.name for slot in traced.space.slots] == ["a", "squeeze", "up"]
    assert scores["a"].tolist() == pytest.approx([0, 1, 2, 3, 4, 5])
    assert scores["squeeze"].tolist() == pytest.approx([2.5 * x for x in (0.4, 0.8, 1.2, 1.6)])  # 2.5: gamma's mean
    assert scores["up"].tolist() == pytest.approx([2.5 * x for x in (1.6, 1.2, 0.8, 0.4)])


@pytest.mark.parametrize("epochs", [20, 40])
def test_lambda_takes_a_gamma_that_nothing_defends_to_zero_in_three_quarters_of_the_training(epochs):
    """The oracle is SGD itself, on one number without any other gradient."""
    training = recipe("fast", epochs)
    steps = training.steps(IMAGES)
    value = torch.ones(1, requires_grad=True)
    sgd = torch.optim.SGD([value], lr=1.0, momentum=training.momentum, nesterov=training.nesterov)
    strength, arrived = strength_for(training, IMAGES), None
    for step in range(steps):
        sgd.param_groups[0]["lr"] = training.lr_at(step / steps)
        value.grad = strength * value.detach().sign()
        sgd.step()
        if arrived is None and value.item() <= 0:
            arrived = step / steps
    assert arrived == pytest.approx(0.75, abs=0.06)


def test_a_strength_that_was_asked_for_is_held_and_the_papers_recipe_has_its_own():
    assert pressure_for("l1", SHORT, IMAGES, strength=0.3, share=0.6) == Pressure("l1", 0.3)
    assert pressure_for("l1", recipe("paper"), 45_000, share=0.6) == Pressure("l1", 1e-4)
    assert pressure_for("l1", SHORT, IMAGES, share=0.6) == Pressure("l1", strength_for(SHORT, IMAGES), 0.6)


def defended(traced, pressure, stiffness):
    """The channels' levels and the last strength of a training in which springs hold every gamma at 1."""
    net, long = traced.build(seed=0), recipe("fast", 40)
    norms = [net.na, net.nb, net.nc, net.wide]
    springs = [torch.linspace(0.2, 1.0, len(n.weight)) * stiffness for n in norms]
    pull = make(pressure, traced.space, net, long, IMAGES)
    sgd = torch.optim.SGD([n.weight for n in norms], lr=1.0, momentum=0.9, nesterov=True)
    steps = long.steps(IMAGES)
    for step in range(steps):
        lr = sgd.param_groups[0]["lr"] = long.lr_at(step / steps)
        for norm, spring in zip(norms, springs, strict=True):
            norm.weight.grad = spring * (norm.weight.detach() - 1)
        pull(net, lr)
        sgd.step()
    return torch.cat(list(levels_of(net, places(traced.space, net)).values())).detach(), pull.strength


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_the_strength_follows_from_what_the_loss_defends(traced, share):
    """What the loss holds harder is pulled harder, and the share that shall go comes nearer to zero."""
    long = recipe("fast", 40)
    follows = pressure_for("l1", long, IMAGES, share=share)
    held = replace(follows, share=0.0)
    strengths = []
    for stiffness in (0.01, 0.04):
        levels, strength = defended(traced, follows, stiffness)
        strengths.append(strength)
        assert levels.quantile(share) < 0.6 * defended(traced, held, stiffness)[0].quantile(share)
        assert levels.max() > 0.3  # what the loss needs most stays
    assert held.strength < strengths[0] < strengths[1]


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_of_channels_that_nothing_defends_the_share_goes_and_not_all(traced, share):
    """A network that has learnt little defends no gamma: all of them fall together."""
    net, long = traced.build(seed=0), recipe("fast", 40)
    norms = [net.na, net.nb, net.nc, net.wide]
    total = sum(len(n.weight) for n in norms)
    with torch.no_grad():
        for n, values in zip(
            norms, torch.linspace(0.93, 1.07, total).split([len(n.weight) for n in norms]), strict=True
        ):
            n.weight.copy_(values)
    pull = make(pressure_for("l1", long, IMAGES, share=share), traced.space, net, long, IMAGES)
    sgd = torch.optim.SGD([n.weight for n in norms], lr=1.0, momentum=0.9, nesterov=True)
    steps = long.steps(IMAGES)
    for step in range(steps):
        lr = sgd.param_groups[0]["lr"] = long.lr_at(step / steps)
        for n in norms:
            n.weight.grad = torch.zeros_like(n.weight)
        pull(net, lr)
        sgd.step()
    levels = torch.cat(list(levels_of(net, places(traced.space, net)).values())).detach()
    assert levels.quantile(share) < 0.05  # the share is gone
    assert (levels < 0.02).float().mean() <= (1 + share) / 2
    assert levels.quantile((1 + share) / 2 + 0.1) > 0.02
    assert pull.strength > 0  # what is told is lambda, whatever part of it pulls


def test_a_penalty_without_a_share_keeps_its_strength(traced):
    net = traced.build(seed=0)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    pull = make(Pressure("l1", 0.25), traced.space, net, SHORT, IMAGES)
    for _ in range(5):
        pull(net, 0.1)
    assert pull.strength == 0.25


def test_channels_that_all_died_stop_the_training(traced):
    net = traced.build(seed=0)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    pull = make(Pressure("l1", 0.25), traced.space, net, SHORT, IMAGES)
    pull(net, 0.1)
    with torch.no_grad():
        for norm in (net.na, net.nb, net.nc, net.wide):
            norm.weight.mul_(0.01)
    with pytest.raises(AllDeadError, match="100 % of its channels are dead after 1 steps"):
        pull(net, 0.1)  # so short a training is looked at after every step


def test_dead_is_measured_against_the_initial_gamma(traced):
    """Gammas that start at 0.01 are alive there; those that start at zero say nothing."""
    net = traced.build(seed=0)
    with torch.no_grad():
        for norm in (net.na, net.nc, net.wide):
            norm.weight.fill_(0.01)
        net.nb.weight.zero_()
    assert start_of(net, places(traced.space, net)) == pytest.approx(0.01)


def test_a_penalty_goes_on_from_its_state(traced):
    def run(pull, net, steps):
        for _ in range(steps):
            for p in net.parameters():
                p.grad = torch.zeros_like(p)
            pull(net, 0.1)
            for norm in (net.na, net.nb, net.nc, net.wide):
                norm.weight.data.sub_(0.02 * norm.weight.grad.sign())

    pressure = pressure_for("l1", SHORT, IMAGES, share=0.5)
    net = traced.build(seed=0)
    whole = make(pressure, traced.space, net, SHORT, IMAGES)
    run(whole, net, 20)
    other = traced.build(seed=0)
    first = make(pressure, traced.space, other, SHORT, IMAGES)
    run(first, other, 9)
    second = make(pressure, traced.space, other, SHORT, IMAGES)
    second.restore(first.state())
    run(second, other, 11)
    assert isinstance(whole, Pull)
    assert second.state() == whole.state()
    assert whole.strength != pressure.strength


def test_the_slots_segment_type_is_what_places_expects(traced):
    norm = next(layer for layer in traced.space.layers if layer.name == "wide")
    assert norm.outputs == (Segment("a", 1), Segment("c", 1))


def test_published_strengths():
    """paper.md, section 1: 1e-4 for VGG, 1e-5 for PreResNet-164 and DenseNet-40."""
    assert [published(name) for name in ("vgg19", "preresnet164", "densenet40")] == [1e-4, 1e-5, 1e-5]
