"""The update of Sparse Structure Selection: accelerated proximal gradient with exact zeros (Huang and Wang 2018).

Source: arXiv 1707.01213, section 3.3, in the form of its code's core/optimizer.py.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_threshold(values: Tensor, threshold: float | Tensor) -> Tensor:
    """The proximal operator of threshold * |x|: values shrunk towards zero by it."""
    return values.sign() * (values.abs() - threshold).clamp_min(0)


@torch.no_grad()
def step(
    factors: Tensor, velocity: Tensor, gradient: Tensor, *, lr: float, strength: float | Tensor, momentum: float
) -> None:
    """One update of scaling factors, in place.

    z = S(factors - lr * gradient, lr * strength); velocity <- z - factors + momentum * velocity;
    factors <- max(0, z + momentum * velocity).

    Args:
        factors: at the point where the gradient was taken; never below zero afterwards.
        velocity: of the same shape, zero before the first step.
        gradient: of the loss without the penalty.
        lr: eta.
        strength: the penalty's weight, gamma in the paper; one for all or one for each factor.
        momentum: mu.
    """
    z = soft_threshold(factors - lr * gradient, lr * strength)
    velocity.copy_(z - factors + momentum * velocity)
    factors.copy_((z + momentum * velocity).clamp_min(0))
