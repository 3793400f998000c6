"""SSS's update against a trajectory worked out by hand, and against proximal gradient on a convex problem."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.pruning import apg


def test_three_steps_by_hand():
    """lr 0.1, penalty 1, momentum 0.5 on the gradient 2 * factor.

    1: z = S(1 - .2, .1) = .7, v = -.3, factor = .7 - .15 = .55
    2: z = S(.55 - .11, .1) = .34, v = -.21 - .15 = -.36, factor = .34 - .18 = .16
    3: z = S(.16 - .032, .1) = .028, v = -.132 - .18 = -.312, factor = max(0, .028 - .156) = 0
    """
    factors, velocity = torch.tensor([1.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    seen = []
    for _ in range(3):
        apg.step(factors, velocity, 2 * factors, lr=0.1, strength=1.0, momentum=0.5)
        seen.append((factors.item(), velocity.item()))
    assert seen == [pytest.approx(pair) for pair in [(0.55, -0.3), (0.16, -0.36), (0.0, -0.312)]]
    assert factors.item() == 0.0


def test_it_finds_what_proximal_gradient_finds():
    """Non-negative LASSO: 1/2 |Ax - b|^2 + g |x|_1, solved by plain proximal gradient to the end."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 8, generator=generator, dtype=torch.float64)
    b = a @ torch.tensor([2.0, 0, 0, 1.0, 0, 0, 0.5, 0], dtype=torch.float64) + 0.1
    lr, strength = 1 / float(torch.linalg.matrix_norm(a, 2) ** 2), 5.0
    plain = torch.ones(8, dtype=torch.float64)
    for _ in range(20_000):
        plain = apg.soft_threshold(plain - lr * (a.T @ (a @ plain - b)), lr * strength).clamp_min(0)
    factors, velocity = torch.ones(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    for _ in range(20_000):
        apg.step(factors, velocity, a.T @ (a @ factors - b), lr=lr, strength=strength, momentum=0.5)
    assert factors == pytest.approx(plain, abs=1e-6)
    assert (factors == 0).sum() == (plain == 0).sum() > 0  # exact zeros, not small numbers


@given(st.floats(-5, 5), st.floats(0, 3))
def test_the_threshold_is_the_proximal_operator(value, threshold):
    shrunk = apg.soft_threshold(torch.tensor([value], dtype=torch.float64), threshold).item()

    def objective(x):
        return 0.5 * (x - value) ** 2 + threshold * abs(x)

    assert all(objective(shrunk) <= objective(shrunk + d) + 1e-12 for d in (-0.1, -1e-3, 1e-3, 0.1))


def test_without_penalty_and_momentum_it_is_gradient_descent():
    factors, velocity = torch.tensor([1.0, 2.0]), torch.zeros(2)
    apg.step(factors, velocity, torch.tensor([0.5, -0.5]), lr=0.1, strength=0.0, momentum=0.0)
    assert factors.tolist() == pytest.approx([0.95, 2.05])
