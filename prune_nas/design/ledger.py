"""What everything cost: training macs and seconds of every phase and arm.

A training step costs three forward passes: one forward, and two of the same size backward (the gradients with
respect to the inputs and to the weights). Evaluation passes are not counted; they are one forward pass an epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from prune_nas.design.records import Expense

FORWARD_AND_BACKWARD = 3


def train_macs(macs: int, images: int, epochs: int) -> int:
    """Multiply-accumulates of training a network of `macs` on `images` images for `epochs` epochs."""
    return FORWARD_AND_BACKWARD * macs * images * epochs


def scratch_b_epochs(epochs: int, base_macs: int, macs: int) -> int:
    """Scratch-B: the epochs that spend the base's training macs on a smaller network, int(E * F_base / F).

    Source: Liu et al. 2019, section 3, as in cifar/*/main_B.py of its code; no cap.
    """
    return epochs * base_macs // macs


def total(expenses: Iterable[Expense]) -> list[Expense]:
    """One expense for each budget, phase and arm: the sums of its trainings, macs and seconds."""
    sums: dict[tuple[str, str, str], Expense] = {}
    for item in expenses:
        key = item.budget, item.phase, item.arm
        before = sums.get(key, Expense(*key, trainings=0, train_macs=0, seconds=0.0))
        sums[key] = replace(
            before,
            trainings=before.trainings + item.trainings,
            train_macs=before.train_macs + item.train_macs,
            seconds=round(before.seconds + item.seconds, 3),
        )
    return list(sums.values())
