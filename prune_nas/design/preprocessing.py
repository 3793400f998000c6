"""How an image must be fed to a network: every step from the file to the tensor, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prune_nas.design.sizes import Size

_SHOWN = 10  # class names in one sentence


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What lies between a picture and the input of a network.

    Attributes:
        size: height and width of the input, in pixels.
        mean: per channel, in units of [0, 1].
        std: per channel, in units of [0, 1].
        classes: names, in the order of the logits.
    """

    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    @property
    def steps(self) -> list[str]:
        """The steps in words."""
        mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return [
            "read the picture as RGB, 8 bits per channel (divide values of 16 bits by 257)",
            f"scale it until it covers {self.size} (height x width) and one side fits exactly, bilinear with "
            "antialiasing (Pillow's Image.resize, or for a square torchvision's Resize)",
            f"cut out the centre, {self.size}",
            "divide by 255",
            f"subtract the mean ({mean}) and divide by the deviation ({std}), channel by channel",
            f"put channels first: float32 of shape (N, 3, {self.size.height}, {self.size.width})",
        ]

    def sentence(self) -> str:
        """All steps and the classes, for a terminal."""
        names = ", ".join(f"{i} {name}" for i, name in enumerate(self.classes[:_SHOWN]))
        more = f" and {len(self.classes) - _SHOWN} more" if len(self.classes) > _SHOWN else ""
        numbered = " ".join(f"{i}. {step[:1].upper()}{step[1:]}." for i, step in enumerate(self.steps, start=1))
        return f"How to feed it an image: {numbered} Classes: {names}{more}."

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a spec and for the metadata of an exported file."""
        return {
            "size": list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "class_names": list(self.classes),
            "steps": self.steps,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is not.
        """
        return cls(
            Size(*map(int, data["size"])),
            _numbers(data["mean"]),
            _numbers(data["std"]),
            tuple(map(str, data["class_names"])),
        )


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
