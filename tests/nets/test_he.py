"""The built-in networks start from He's values, MobileNetV2 from PyTorch's, at their full width and at every other."""

import math

import pytest
import torch
from torch import nn

from prune_nas.nets import models
from prune_nas.nets.tracing import trace


def deviations(network):
    """Standard deviation of each large weight, over what He et al. 2015 (equation 10) ask for: sqrt(2 / fan_in)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() > 2000:
            fan_in = layer.weight[0].numel()
            yield float(layer.weight.detach().std()) / math.sqrt(2 / fan_in)


@pytest.mark.parametrize("name", ["vgg11", "resnet20", "preresnet164", "densenet40"])
def test_weights_have_the_deviation_that_he_asks_for(name):
    torch.manual_seed(0)
    network = models.create(name, 10)
    found = list(deviations(network))
    assert len(found) > 7
    assert found == pytest.approx([1.0] * len(found), abs=0.08)
    assert all(not layer.bias.any() for layer in network.modules() if isinstance(layer, nn.Linear))
    assert all((layer.weight == 1).all() for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))


def test_mobilenetv2_starts_as_pytorch_s_layers_do():
    """Uniform within 1 / sqrt(fan_in), which is a sixth of He's variance."""
    torch.manual_seed(0)
    found = list(deviations(models.create("mobilenetv2", 10)))
    assert len(found) > 20
    assert found == pytest.approx([math.sqrt(1 / 6)] * len(found), abs=0.04)


def test_they_have_it_at_other_widths_too():
    traced = trace("vgg11", input_shape=(3, 32, 32), classes=10)
    widths = {name: max(width // 3, 1) for name, width in traced.space.base.items()}
    found = list(deviations(traced.build(widths, seed=1)))
    assert found == pytest.approx([1.0] * len(found), abs=0.08)
    as_published = traced.starting_as("paper").build(widths, seed=1)
    assert float(as_published.norm1_1.weight[0]) == 0.5
