import pytest
import torch
from torch import nn

from prune_nas.design.parts import Segment
from prune_nas.errors import UsageError
from prune_nas.nets.tracing import trace
from prune_nas.pruning.importance import channel_scores
from prune_nas.pruning.norms import places
from prune_nas.pruning.penalties import PAPER_STRENGTH, make, published, strength_for
from prune_nas.training.recipe import recipe


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
    assert scores["c"].tolist() == pytest.approx([(0.5 + 6 + i) / 2 for i in range(4)])


def test_the_penalty_is_the_gradient_of_its_term(traced):
    net = traced.build(seed=0)
    with torch.no_grad():
        net.nb.weight.copy_(torch.tensor([-1.0, 0.0, 2.0, -0.1, 0.5, 0.0]))
    term = 0.01 * sum(n.weight.abs().sum() for n in (net.na, net.nb, net.nc, net.wide))
    term.backward()
    wanted = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    make("l1", traced.space, net, 0.01)(net, 0.1)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, wanted.get(name, torch.zeros_like(p)))


def test_cost_weights_follow_marginal_cost_and_average_one(traced):
    space, net = traced.space, traced.build(seed=0)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    make("l1-macs", space, net, 1.0)(net, 0.1)
    full = space.cost(space.widest).macs
    marginal = {s.name: full - space.cost({**space.widest, s.name: s.ceiling - 1}).macs for s in space.slots}
    got = {"a": net.na.weight.grad[0].item(), "c": net.nc.weight.grad[0].item()}
    assert got["a"] / got["c"] == pytest.approx(marginal["a"] / marginal["c"])
    assert (6 * got["a"] + 4 * got["c"]) / 10 == pytest.approx(1.0)


def test_no_penalty_is_none_and_a_wrong_name_is_named(traced):
    net = traced.build(seed=0)
    assert make("none", traced.space, net, 1.0) is None
    with pytest.raises(UsageError, match="l1-macs"):
        make("l1-mac", traced.space, net, 1.0)


def test_a_network_without_any_gamma_is_an_error_with_the_repair():
    bare = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)))
    with pytest.raises(UsageError, match="use --penalty none"):
        make("l1", bare.space, bare.build(seed=0), 1e-4)
    assert make("none", bare.space, bare.build(seed=0), 1e-4) is None


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


def test_lambda_grows_as_the_schedule_shrinks_down_to_the_papers():
    assert strength_for(recipe("paper"), 45_000) == PAPER_STRENGTH
    long, short = (strength_for(recipe("fast", n), 10_000) for n in (40, 20))
    assert short == pytest.approx(2 * long, rel=0.01)
    assert 5e-4 < short < 2e-3  # where gamma was measured to separate: 1e-3 at 20 epochs of 10,000 images


def test_the_slots_segment_type_is_what_places_expects(traced):
    norm = next(layer for layer in traced.space.layers if layer.name == "wide")
    assert norm.outputs == (Segment("a", 1), Segment("c", 1))


def test_published_strengths():
    """paper.md, section 1: 1e-4 for VGG, 1e-5 for PreResNet-164 and DenseNet-40."""
    assert [published(name) for name in ("vgg19", "preresnet164", "densenet40")] == [1e-4, 1e-5, 1e-5]
