"""scikit-learn's 1797 handwritten digits: small, and on every machine that this program is installed on."""

from __future__ import annotations

from collections import Counter

import numpy as np

from prune_nas.design.sizes import Size
from prune_nas.training.data.decode import resize
from prune_nas.training.data.images import Images
from prune_nas.training.data.source import Arrays, Source
from prune_nas.training.data.split import stratified

_COUNT = 1797
_TEST_SHARE = 0.2
_TEST_SEED = 1797  # the set has no official test images: these are everybody's, whatever the seed of a run


def open_digits() -> Source:
    """The 8x8 grey digits, scaled and repeated in three channels."""
    return Source(
        name="digits",
        classes=tuple("0123456789"),
        read=_read,
        tests=round(_TEST_SHARE * _COUNT),
        sizes=lambda: Counter({Size(8, 8): _COUNT}),
        size=Size(32, 32),
        flip=False,
        reflect=False,
    )


def _read(split: str, size: Size) -> Images:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second, which no other set need wait for

    grey, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int64)
    test = stratified(labels, round(_TEST_SHARE * len(labels)), np.random.default_rng(_TEST_SEED))
    chosen = test if split == "test" else np.setdiff1d(np.arange(len(labels)), test, assume_unique=True)
    pixels = np.rint(grey[chosen].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)  # grey runs from 0 to 16
    return Arrays(np.repeat(resize(pixels, size), 3, axis=3), labels[chosen]).images()
