"""Reading the pickles that CIFAR is published as, without letting them run anything.

A pickle is a program that may call what it can name. This reader lets it name NumPy's array, type and array
constructor, and nothing else.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, final

import numpy as np

_RECONSTRUCT = np.empty(0).__reduce__()[0]  # the private function that NumPy itself writes into a pickle


class UnsafePickleError(Exception):
    """A pickle that names something other than a NumPy array, or is not a pickle at all."""


def read_pickle(content: bytes) -> Any:
    """The value of a pickle of plain Python values and NumPy arrays; byte strings of Python 2 become `str`.

    Raises:
        UnsafePickleError: it asks for anything else, or is damaged.
    """
    try:
        return _Reader(io.BytesIO(content), encoding="latin1").load()
    except UnsafePickleError:
        raise
    except Exception as error:  # a damaged pickle fails in whatever operation it happens to spell
        raise UnsafePickleError(f"damaged pickle: {error}") from error


def _encode(text: str, encoding: str) -> bytes:
    """What newer pickles of bytes call; only the one codec they use, since a codec's name is an import."""
    if encoding != "latin1":
        raise UnsafePickleError(f"the codec {encoding!r} is not allowed")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}


@final
class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(f"{module}.{name} is not allowed") from None
