import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prune_nas.nets.tracing import trace
from prune_nas.training.convolution import quick_gradients, weight_gradient

CPU = torch.device("cpu")


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_weight_s_gradient_is_autograd_s(kernel, stride, padding, layout):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64).to(memory_format=layout)
    weight = torch.randn(5, 4, *kernel, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(x, weight, None, stride, padding)
    gradient = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, weight, gradient)
    torch.testing.assert_close(weight_gradient(gradient, x, weight.shape, stride, padding), expected)


def gradients(network, x, y, *, quick):
    network = copy.deepcopy(network)
    with quick_gradients(network, CPU, torch.bfloat16 if quick else torch.float32):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(x), y)
        loss.backward()
    return loss.item(), {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.parametrize("bias", [False, True])
def test_a_network_s_gradients_are_those_of_plain_bf16(bias):
    """Both are rounded, so each is compared with fp32: the product may not be farther from it."""
    network = trace("vgg11").scaled(base=0.5).build(seed=0).to(memory_format=torch.channels_last)
    if bias:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.bias = nn.Parameter(torch.zeros(module.out_channels))
    torch.manual_seed(1)
    x, y = torch.randn(16, 3, 32, 32).to(memory_format=torch.channels_last), torch.arange(16) % 10
    exact = copy.deepcopy(network)
    F.cross_entropy(exact(x), y).backward()
    whole = {name: p.grad for name, p in exact.named_parameters()}
    (plain_loss, plain), (quick_loss, quick) = (gradients(network, x, y, quick=q) for q in (False, True))
    assert quick_loss == pytest.approx(plain_loss, rel=1e-3)
    assert plain.keys() == quick.keys()
    for name, exactly in whole.items():
        assert quick[name].dtype == torch.float32
        off = [(g - exactly).norm() / (exactly.norm() + 1e-6) for g in (plain[name], quick[name])]
        assert off[1] < 1.5 * off[0] + 0.01, name


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0)])
def test_a_layer_s_own_gradients_bias_included(stride, padding):
    torch.manual_seed(0)
    layer = nn.Conv2d(128, 96, 3, stride, padding)
    x = torch.randn(8, 128, 6, 6, requires_grad=True)
    out = layer(x)
    wanted = torch.randn_like(out)
    exact = torch.autograd.grad(out, [x, layer.weight, layer.bias], wanted)
    with quick_gradients(layer, CPU, torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        quick = layer(x)
    found = torch.autograd.grad(quick, [x, layer.weight, layer.bias], wanted.to(quick.dtype))
    for one, other in zip(found, exact, strict=True):
        assert ((one - other).norm() / other.norm()).item() < 0.01


def test_only_what_is_trained_gets_a_gradient(monkeypatch):
    from prune_nas.training import convolution

    calls = []
    real = convolution.weight_gradient
    monkeypatch.setattr(convolution, "weight_gradient", lambda *given: calls.append(1) or real(*given))
    frozen, free = nn.Conv2d(128, 128, 3), nn.Conv2d(128, 128, 3)
    frozen.weight.requires_grad_(False)
    network = nn.Sequential(frozen, free)
    with quick_gradients(network, CPU, torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(2, 128, 7, 7)).sum().backward()
    assert len(calls) == 1
    assert frozen.weight.grad is None
    assert frozen.bias.grad is not None


def test_a_block_without_autocast_and_a_copy_keep_their_numbers():
    layer, x = nn.Conv2d(128, 128, 3), torch.randn(2, 128, 6, 6)
    with quick_gradients(layer, CPU, torch.bfloat16):
        copied = copy.deepcopy(layer)
        for one in (layer, copied):
            assert one(x).dtype == torch.float32
            with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
                assert one(x).dtype == torch.float32
    assert copied(x).dtype == torch.float32
    with quick_gradients(layer, CPU, torch.bfloat16), quick_gradients(layer, CPU, torch.bfloat16):
        pass
    assert "_conv_forward" not in layer.__dict__


def test_the_network_is_what_it_was_afterwards():
    network = trace("vgg11").scaled(base=0.25).build(seed=0)
    before = {name: dict(module.__dict__) for name, module in network.named_modules()}
    with quick_gradients(network, CPU, torch.bfloat16):
        assert sum("_conv_forward" in module.__dict__ for module in network.modules()) == 4
    with pytest.raises(ZeroDivisionError), quick_gradients(network, CPU, torch.bfloat16):
        1 / 0  # noqa: B018
    assert {name: dict(module.__dict__).keys() for name, module in network.named_modules()} == {
        name: state.keys() for name, state in before.items()
    }


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(128, 128, 3, groups=2),
        nn.Conv2d(128, 128, 3, dilation=2),
        nn.Conv2d(128, 128, 3, padding="same"),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3),
        type("Mine", (nn.Conv2d,), {})(128, 128, 3),
    ],
)
def test_what_is_not_plain_is_left_alone(layer):
    with quick_gradients(nn.Sequential(layer), CPU, torch.bfloat16):
        assert "_conv_forward" not in layer.__dict__


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_formats_are_left_alone(dtype):
    layer = nn.Conv2d(128, 128, 3)
    with quick_gradients(layer, CPU, dtype):
        assert "_conv_forward" not in layer.__dict__
