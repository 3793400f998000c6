"""What a run is about, in words: the network at its width and image size, and the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from prune_nas.design.sizes import Size
from prune_nas.design.space import Space

_SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Subject:
    """A network and the images that it is trained on.

    Attributes:
        model: the name that the user gave.
        base_width: factor on all widths of the network; 1 is the network as it is.
        image_size: as text, `64x64`.
        macs: of the network at that width, for one image.
        params: its trainable numbers.
        dataset: the name that the user gave.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        classes: their number.
    """

    model: str
    base_width: float
    image_size: str
    macs: int
    params: int
    dataset: str
    train: int
    val: int
    test: int
    classes: int

    @classmethod
    def of(cls, space: Space, base_width: float, dataset: str, images: tuple[int, int, int]) -> Subject:
        """The subject of a run on so many training, validation and test images."""
        cost, size = space.cost(space.base), str(Size(*space.input_shape[-2:]))
        return cls(space.model, base_width, size, cost.macs, cost.params, dataset, *images, space.classes)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Subject:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is not.
        """
        kinds = {"str": str, "int": int, "float": float}
        return cls(**{field.name: kinds[str(field.type)](data[field.name]) for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `run.json`."""
        return asdict(self)

    @property
    def network(self) -> str:
        """`net.py:Mine, full width, 64x64, 2.2M macs`."""
        return f"{self.model}, {width_words(self.base_width)}, {self.image_size}, {count(self.macs)} macs"

    @property
    def images(self) -> str:
        """`folder:photos, 1,500 training, 375 validation, 600 test images, 6 classes`."""
        return (
            f"{self.dataset}, {self.train:,} training, {self.val:,} validation, {self.test:,} test images, "
            f"{self.classes} classes"
        )

    def __str__(self) -> str:
        return f"{self.network}; {self.images}"


def width_words(base_width: float) -> str:
    """A factor on all widths in words."""
    return "full width" if base_width == 1 else f"{base_width:g} of its width"


def count(number: float, digits: int = 1) -> str:
    """A number with its unit and so many digits after the point, such as 2.2M or 0.8G."""
    for unit, suffix in _SUFFIXES:
        if number >= unit:
            scaled = number / unit
            return f"{scaled:.{digits}f}{suffix}" if scaled < 100 else f"{scaled:.0f}{suffix}"
    return f"{number:.0f}"


def counts_apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers as `count` writes them, with a second digit if they would look equal."""
    digits = 2 if count(one) == count(other) and one != other else 1
    return count(one, digits), count(other, digits)
