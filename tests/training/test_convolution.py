import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prune_nas.nets.tracing import trace
from prune_nas.training import convolution
from prune_nas.training.convolution import convolved, input_gradient, quick_convolutions, weight_gradient

CPU = torch.device("cpu")


@pytest.fixture(params=[False, True], ids=["no AMX", "AMX"])
def amx(request, monkeypatch):
    monkeypatch.setattr(convolution, "has_amx", lambda: request.param)
    return request.param


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


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_is_the_convolution(kernel, stride, padding, layout, biased):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64).to(memory_format=layout)
    weight = torch.randn(5, 4, *kernel, dtype=torch.float64).to(memory_format=layout)
    bias = torch.randn(5, dtype=torch.float64) if biased else None
    out = convolved(x, weight, bias, stride, padding)
    torch.testing.assert_close(out, F.conv2d(x, weight, bias, stride, padding))
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("kernel", "padding"),
    [((1, 1), (0, 0)), ((3, 3), (1, 1)), ((3, 3), (0, 2)), ((5, 3), (2, 0)), ((1, 1), (1, 2)), ((3, 1), (3, 1))],
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_an_input_s_gradient_is_autograd_s(kernel, padding, layout):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, *kernel, dtype=torch.float64).to(memory_format=layout)
    out = F.conv2d(x, weight, None, 1, padding)
    gradient = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, gradient)
    torch.testing.assert_close(input_gradient(gradient, weight, padding), expected)


def gradients(network, x, y, *, quick):
    network = copy.deepcopy(network)
    with quick_convolutions(network, CPU, torch.bfloat16 if quick else torch.float32):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(x), y)
        loss.backward()
    return loss.item(), {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.parametrize("bias", [False, True])
def test_a_network_s_gradients_are_those_of_plain_bf16(bias, amx):
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


@pytest.mark.parametrize(("stride", "padding", "kernel"), [(1, 1, 3), (2, 0, 3), (1, 0, 3), (1, 0, 1), (2, 1, 1)])
@pytest.mark.parametrize("size", [4, 6])
def test_a_layer_s_own_gradients_bias_included(stride, padding, kernel, size, amx):
    torch.manual_seed(0)
    layer = nn.Conv2d(128, 96, kernel, stride, padding)
    x = torch.randn(8, 128, size, size, requires_grad=True)
    out = layer(x)
    wanted = torch.randn_like(out)
    exact = torch.autograd.grad(out, [x, layer.weight, layer.bias], wanted)
    with quick_convolutions(layer, CPU, torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        quick = layer(x)
    found = torch.autograd.grad(quick, [x, layer.weight, layer.bias], wanted.to(quick.dtype))
    for one, other in zip(found, exact, strict=True):
        assert ((one - other).norm() / other.norm()).item() < 0.01


def test_only_what_is_trained_gets_a_gradient(amx, monkeypatch):
    calls = []
    real = convolution.weight_gradient
    monkeypatch.setattr(convolution, "weight_gradient", lambda *given: calls.append(1) or real(*given))
    frozen, free = nn.Conv2d(128, 128, 3), nn.Conv2d(128, 128, 3)
    frozen.weight.requires_grad_(False)
    network = nn.Sequential(frozen, free)
    with quick_convolutions(network, CPU, torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(2, 128, 6, 6)).sum().backward()
    assert len(calls) == 1
    assert frozen.weight.grad is None
    assert frozen.bias.grad is not None


@pytest.mark.parametrize(
    ("places", "where"),
    [
        (4, {False: ["weight_gradient"], True: ["convolved", "input_gradient", "weight_gradient"]}),
        (8, {False: [], True: ["weight_gradient"]}),
    ],
)
def test_a_product_is_taken_where_it_is_faster(places, where, amx, monkeypatch):
    taken = []
    for name in ("input_gradient", "weight_gradient", "convolved"):
        real = getattr(convolution, name)
        monkeypatch.setattr(convolution, name, lambda *a, name=name, real=real: taken.append(name) or real(*a))
    layer = nn.Conv2d(128, 128, 3, padding=1)
    x = torch.randn(2, 128, places, places, requires_grad=True)
    with quick_convolutions(layer, CPU, torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        layer(x).sum().backward()
    assert sorted(taken) == where[amx]


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("highest", "allowed"),
    [("", True), ("default", True), ("ALL", True), ("avx512_core_amx", True), ("AVX512_CORE_BF16", False)],
)
def test_amx_may_be_forbidden(name, highest, allowed, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    monkeypatch.setenv(name, highest)
    assert convolution.has_amx() is allowed
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert not convolution.has_amx()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert convolution.has_amx() is allowed


@pytest.mark.parametrize("size", [1, 2])
def test_a_kernel_larger_than_the_image_is_an_error(size, amx):
    layer = nn.Conv2d(128, 128, 3)
    x = torch.randn(2, 128, size, size)
    quick = quick_convolutions(layer, CPU, torch.bfloat16)
    with quick, torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="Kernel size"):
        layer(x)


@torch.inference_mode()
def test_without_gradients_the_product_is_the_same(amx, monkeypatch):
    taken = []
    real = convolution.convolved
    monkeypatch.setattr(convolution, "convolved", lambda *given: taken.append(1) or real(*given))
    layer, x = nn.Conv2d(128, 128, 3, padding=1), torch.randn(2, 128, 4, 4)
    with quick_convolutions(layer, CPU, torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert len(taken) == amx
    torch.testing.assert_close(found, layer(x).bfloat16(), rtol=0.02, atol=0.02)


def test_a_block_without_autocast_and_a_copy_keep_their_numbers():
    layer, x = nn.Conv2d(128, 128, 3), torch.randn(2, 128, 6, 6)
    with quick_convolutions(layer, CPU, torch.bfloat16):
        copied = copy.deepcopy(layer)
        for one in (layer, copied):
            assert one(x).dtype == torch.float32
            with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
                assert one(x).dtype == torch.float32
    assert copied(x).dtype == torch.float32
    with quick_convolutions(layer, CPU, torch.bfloat16):
        own = layer.__dict__["_conv_forward"]
        with quick_convolutions(layer, CPU, torch.bfloat16):
            pass
        assert layer.__dict__["_conv_forward"] is own
    assert "_conv_forward" not in layer.__dict__


def test_the_network_is_what_it_was_afterwards():
    network = trace("vgg11").scaled(base=0.25).build(seed=0)
    before = {name: dict(module.__dict__) for name, module in network.named_modules()}
    with quick_convolutions(network, CPU, torch.bfloat16):
        assert sum("_conv_forward" in module.__dict__ for module in network.modules()) == 4
    with pytest.raises(ZeroDivisionError), quick_convolutions(network, CPU, torch.bfloat16):
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
    with quick_convolutions(nn.Sequential(layer), CPU, torch.bfloat16):
        assert "_conv_forward" not in layer.__dict__


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_formats_are_left_alone(dtype):
    layer = nn.Conv2d(128, 128, 3)
    with quick_convolutions(layer, CPU, dtype):
        assert "_conv_forward" not in layer.__dict__


@pytest.mark.parametrize("channels", [2, 4, 7])
@pytest.mark.parametrize("stride", [2, (1, 2), 3])
def test_a_narrow_convolution_with_a_stride_is_cut_first(channels, stride):
    """PyTorch 2.14.1 corrupts the heap or hangs here in channels_last. The oracle is the contiguous convolution."""
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 6, 1, stride, bias=True)
    x = torch.randn(5, channels, 9, 8)
    plain = copy.deepcopy(layer)
    expected = plain(x)
    expected.square().sum().backward()
    placed, given = layer.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with quick_convolutions(nn.Sequential(placed), CPU, torch.float32):
        found = placed(given)
        found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(placed.weight.grad, plain.weight.grad)
    assert "_conv_forward" not in placed.__dict__
