"""How long a training must be, and whether it learnt anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FEWEST = 200
"""Steps that most networks need to leave guessing: small convolutional ones took 100 to 250 (README of the results)."""
_MARGIN = 0.05  # of the way from guessing to certainty, below which an accuracy is guessing
_DEVIATIONS = 2.0  # of an accuracy that guesses, on so many images, below which it is guessing


@dataclass(frozen=True, slots=True)
class Chance:
    """What guessing reaches on a set of images.

    Attributes:
        guessing: the accuracy of always naming the most common class, in [0, 1].
        images: their number.
    """

    guessing: float
    images: int

    def is_beaten(self, accuracy: float) -> bool:
        """Whether an accuracy on these images is better than guessing.

        True where it is above `guessing` by 5 % of what is left to certainty, and by two standard deviations of an
        accuracy that guesses. On so few images that this is more than 100 %, true where all are right.
        """
        deviation = math.sqrt(self.guessing * (1 - self.guessing) / max(self.images, 1))
        least = self.guessing + max(_MARGIN * (1 - self.guessing), _DEVIATIONS * deviation)
        return accuracy >= min(least, 1.0) and accuracy > self.guessing


def loss_of_guessing(counts: Sequence[int], smoothing: float) -> float:
    """The least cross-entropy, in nats, that an answer reaches which is the same for every image.

    It is the entropy of the labels' shares, smoothed as the labels are.

    Args:
        counts: images of each class.
        smoothing: share of a label that goes to all classes alike.
    """
    shares = [(1 - smoothing) * count / sum(counts) + smoothing / len(counts) for count in counts]
    return -sum(share * math.log(share) for share in shares if share > 0)


def epochs_of(epochs: int, steps: int, images: int, batch: int) -> int:
    """Epochs that are at least `epochs`, and at least `steps` optimiser steps on so many images."""
    return max(epochs, math.ceil(steps / max(images // batch, 1)))


def too_short(trainings: Mapping[str, int], images: int, batch: int) -> list[str]:
    """A sentence for every kind of training that is too short for most networks.

    Args:
        trainings: the setting that gives its epochs, such as `epochs` -> epochs.
        images: training images.
        batch: images per step.
    """
    each = max(images // batch, 1)
    flags = {name: f"--{name.replace('_', '-')}" for name in trainings}
    return [
        f"{flags[name]} {epochs} is {epochs * each} steps of {batch} images. Most networks need {FEWEST} steps or more "
        f"to learn anything: take {flags[name]} {math.ceil(FEWEST / each)} or more"
        for name, epochs in trainings.items()
        if epochs * each < FEWEST
    ]
