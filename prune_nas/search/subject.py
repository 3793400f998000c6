"""Which network is searched, and at which size: the one that was named, unless the user asks for another."""

from __future__ import annotations

from prune_nas.config import Config
from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError
from prune_nas.nets.models import sources
from prune_nas.nets.tracing import USUAL
from prune_nas.training.data import Outline, outline


def settled(config: Config) -> Config:
    """The configuration with the image size that network and data set decide, where the user did not.

    Raises:
        UsageError: the size cannot be known; the message asks for it, and names the sizes of the pictures.
    """
    if config.image_size is not None:
        return config
    size = image_size(config.model, config.dataset, outline(config.dataset, data_dir=config.data_dir))
    return config.model_copy(update={"image_size": str(size)})


def image_size(model: str, dataset: str | None = None, data: Outline | None = None) -> Size:
    """The size of the images that a network is trained on, where the user does not say.

    Built-in networks are made for 32x32, and `digits` has that size for every network. Networks of torchvision and timm
    take the size that they were published for. Python code takes the data set's own size.

    Raises:
        UsageError: neither network nor data set has a size.
    """
    if not sources.is_named(model):
        return USUAL
    if dataset == "digits":
        return USUAL
    size = sources.own_size(model) or (data and data.size)
    if size is None:
        sources.maker(model, data.classes if data else 2, 1.0)  # that it is there comes before its size
        found = f" The pictures of {dataset} have {data.found}." if data else ""
        raise UsageError(
            f"the image size of {model} is not known.{found} Give it in pixels, such as --image-size "
            f"{data.fitting.height if data else 64}, or as height x width, such as --image-size 64x48"
        )
    return size
