"""The built-in networks: ordinary PyTorch, without any width plumbing; `sources` has all others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from prune_nas.errors import UsageError
from prune_nas.nets.models.densenet import densenet40
from prune_nas.nets.models.he import he
from prune_nas.nets.models.mobilenet import mobilenetv2
from prune_nas.nets.models.preresnet import preresnet164
from prune_nas.nets.models.resnet import resnet20, resnet32, resnet56, resnet110
from prune_nas.nets.models.suggestions import suggestions
from prune_nas.nets.models.vgg import vgg11, vgg13, vgg16, vgg19
from prune_nas.nets.models.widths import check_base_width

__all__ = ["BY_DEFAULT", "DESCRIPTIONS", "MODELS", "check_base_width", "create", "maker", "no_model"]


def create(name: str, classes: int, base_width: float = 1.0) -> nn.Module:
    """The built-in network called `name`, with `classes` outputs, every layer `base_width` times as wide as published.

    Its weights are He's (`he`), those of `mobilenetv2` PyTorch's defaults: each by what was measured
    (`artifacts/results/learning.md`).

    Raises:
        UsageError: there is no such network, or `base_width` is not positive.
    """
    return maker(name, classes, base_width)()


def maker(name: str, classes: int, base_width: float = 1.0) -> Callable[[], nn.Module]:
    """What makes the built-in network called `name`.

    Raises:
        UsageError: there is no such network, or `base_width` is not positive.
    """
    if name not in MODELS:
        raise no_model(name)
    check_base_width(base_width)
    return partial(_made, name, classes, base_width)


def _made(name: str, classes: int, base_width: float) -> nn.Module:
    network = MODELS[name](classes=classes, base_width=base_width)
    return network if name in BY_DEFAULT else he(network)


def no_model(name: str) -> UsageError:
    """The error for a --model that is not there, with what may have been meant."""
    found = suggestions(name, MODELS)
    hint = f"Did you mean {' or '.join(found)}?" if found else "`prune-nas models` lists the networks"
    return UsageError(f"there is no network {name!r}. {hint}")


MODELS: dict[str, Callable[..., nn.Module]] = {
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "preresnet164": preresnet164,
    "densenet40": densenet40,
    "mobilenetv2": mobilenetv2,
}

BY_DEFAULT = {"mobilenetv2"}
"""Networks that start from PyTorch's defaults. At a quarter of its width MobileNetV2 learns faster from them."""

DESCRIPTIONS: dict[str, str] = {
    "vgg11": "VGG-11 with BatchNorm for 32x32 images, 9.2M parameters",
    "vgg13": "VGG-13 with BatchNorm for 32x32 images, 9.4M parameters",
    "vgg16": "VGG-16 with BatchNorm for 32x32 images, 14.7M parameters",
    "vgg19": "VGG-19 with BatchNorm for 32x32 images, 20.0M parameters",
    "resnet20": "CIFAR ResNet-20 with option-A shortcuts, 0.27M parameters",
    "resnet32": "CIFAR ResNet-32 with option-A shortcuts, 0.46M parameters",
    "resnet56": "CIFAR ResNet-56 with option-A shortcuts, 0.85M parameters",
    "resnet110": "CIFAR ResNet-110 with option-A shortcuts, 1.73M parameters",
    "preresnet164": "pre-activation bottleneck ResNet-164 for 32x32 images, 1.70M parameters",
    "densenet40": "DenseNet-40 with growth 12 for 32x32 images, 1.06M parameters",
    "mobilenetv2": "MobileNetV2 for 32x32 images, 2.24M parameters",
}
