"""Scores of channels that no BatchNorm scales."""

import pytest
import torch
from torch import nn

from prune_nas.nets.tracing import trace
from prune_nas.pruning.importance import channel_scores
from tests.nets.networks import Head

SMALL = (3, 8, 8)


class Row(nn.Module):
    """A convolution that is added to a concatenation: it produces a part of each branch's slot."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.both = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 16, 1), nn.Conv2d(3, 24, 1)
        self.head = Head(24)

    def forward(self, x):
        return self.head(torch.cat([self.one(x), self.two(x)], 1) + self.both(x))


class Cut(nn.Module):
    """A convolution whose channels are cut in two: its rows are the slot's twice."""

    def __init__(self):
        super().__init__()
        self.both, self.head = nn.Conv2d(3, 16, 1), Head(8)

    def forward(self, x):
        values, gates = self.both(x).chunk(2, 1)
        return self.head(values * gates.sigmoid())


@pytest.mark.parametrize("make", [Row, Cut])
def test_without_a_norm_each_channel_is_scored_by_its_own_weights(make):
    traced = trace(make, input_shape=SMALL)
    network = traced.build(seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
        network.both.weight[10 if make is Row else 11] = 0
    scores = channel_scores(traced.space, network)
    assert {name: len(score) for name, score in scores.items()} == dict(traced.space.base)
    # Row 10 of `both` is channel 2 of the second branch; row 11 of the cut one is channel 3 of its second half.
    slot, channel = ("two", 2) if make is Row else ("both", 3)
    assert scores[slot].argmin() == channel
    assert (scores[slot] < scores[slot].max()).sum() == 1
