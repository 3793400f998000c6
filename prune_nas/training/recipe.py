"""Recipes: everything about how a network is trained, as one frozen value.

The learning rate is a function of progress in [0, 1), so that stretching a schedule (scratch-b) stretches its policy
as well, as the paper's code does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from prune_nas.errors import UsageError, unknown


def one_cycle(progress: float, warm_up: float = 0.25, start: float = 0.08) -> float:
    """Linear rise from `start` to 1 during the first `warm_up` of training, then cosine to 0.

    Source: Smith and Topin 2017, "Super-Convergence", with the cosine descent that fast CIFAR recipes use.
    """
    if progress < warm_up:
        return start + (1 - start) * progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def step(progress: float) -> float:
    """A tenth from 50 % of training, a hundredth from 75 % (Network Slimming's main.py)."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def constant(progress: float) -> float:
    """No change."""
    return 1.0


POLICIES: Mapping[str, Callable[[float], float]] = {"one-cycle": one_cycle, "step": step, "constant": constant}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: of the recipe.
        epochs: passes over the training images.
        lr: the highest learning rate.
        policy: a name of `POLICIES`.
        batch: images per step.
        weight_decay: of SGD for every parameter, norms included; of AdamW for weights alone.
        nesterov: whether SGD's momentum is Nesterov's.
        momentum: of SGD.
        label_smoothing: share of a label that goes to all classes alike.
        optimizer: `sgd` or `adamw`; of all parameters but those that `gamma_lr` is for.
        reflect: whether crops may reach into the mirror image of a picture; else into zeros.
        gamma_lr: the highest learning rate of BatchNorm's parameters where SGD updates them and AdamW the others; 0
            where one optimiser updates all.
    """

    name: str
    epochs: int
    lr: float
    policy: str
    batch: int
    weight_decay: float
    nesterov: bool
    momentum: float = 0.9
    label_smoothing: float = 0.0
    optimizer: str = "sgd"
    reflect: bool = True
    gamma_lr: float = 0.0

    def lr_at(self, progress: float) -> float:
        """The learning rate at `progress` in [0, 1): steps done / all steps."""
        return self.lr * POLICIES[self.policy](progress)

    def lasting(self, epochs: int) -> Recipe:
        """This recipe for another number of epochs.

        Raises:
            UsageError: `epochs` is below 1.
        """
        if epochs < 1:
            raise UsageError(f"a training must last at least 1 epoch. Got {epochs}")
        return replace(self, epochs=epochs)

    def using(self, optimizer: str) -> Recipe:
        """This recipe with another optimiser, at that one's usual learning rate and weight decay.

        Raises:
            UsageError: there is no such optimiser.
        """
        if optimizer not in OPTIMIZERS:
            raise unknown("optimizer", optimizer, (*OPTIMIZERS, "auto"))
        if optimizer == self.optimizer:
            return self
        lr, weight_decay = OPTIMIZERS[optimizer]
        return replace(self, optimizer=optimizer, lr=lr, weight_decay=weight_decay)

    def penalised(self) -> Recipe:
        """This recipe for a training under a penalty on BatchNorm's gamma: SGD updates BatchNorm's parameters.

        AdamW bounds every step by its learning rate. The loss could not defend a gamma against a penalty that moves an
        undefended gamma to zero in time.
        """
        return self if self.optimizer == "sgd" else replace(self, gamma_lr=OPTIMIZERS["sgd"][0])

    @property
    def gamma_share(self) -> float:
        """The learning rate of BatchNorm's parameters / that of the others."""
        return self.gamma_lr / self.lr if self.gamma_lr else 1.0

    def tuning(self) -> Recipe:
        """A hundredth of the learning rates throughout: the paper's fine-tuning (cifar/*/main_finetune.py)."""
        return replace(self, lr=self.lr / 100, gamma_lr=self.gamma_lr / 100, policy="constant")

    def halved(self) -> Recipe:
        """Half the batch and, linearly, half the learning rates: for a device that ran out of memory."""
        return replace(self, batch=max(self.batch // 2, 1), lr=self.lr / 2, gamma_lr=self.gamma_lr / 2)

    def travel(self, images: int) -> float:
        """How far a constant gradient of 1 would move a weight over the whole training: sum of lr / (1 - momentum).

        This is what a sparsity penalty's strength has to be scaled by when a schedule is short.
        """
        return self.path(images) / (1 - self.momentum)

    def path(self, images: int) -> float:
        """The sum of the learning rate over all steps of the training on so many images."""
        steps = self.steps(images)
        return sum(self.lr_at(i / steps) for i in range(steps))

    def steps(self, images: int) -> int:
        """Optimiser steps of the whole training on so many images; a last batch that is not full is left out."""
        return self.epochs * max(images // self.batch, 1)


OPTIMIZERS: Mapping[str, tuple[float, float]] = {"sgd": (0.1, 5e-4), "adamw": (2e-3, 0.05)}
"""Name -> highest learning rate and weight decay, where a recipe does not name its own."""

RECIPES: Mapping[str, Recipe] = {
    "paper": Recipe("paper", 160, 0.1, "step", batch=64, weight_decay=1e-4, nesterov=False, reflect=False),
    "fast": Recipe("fast", 20, 0.1, "one-cycle", batch=64, weight_decay=5e-4, nesterov=True, label_smoothing=0.1),
}


def recipe(name: str, epochs: int | None = None) -> Recipe:
    """The recipe called `name`, for `epochs` if given.

    Raises:
        UsageError: there is no such recipe.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name] if epochs is None else RECIPES[name].lasting(epochs)
