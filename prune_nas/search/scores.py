"""`scores.safetensors`: one score per channel of every slot, what is left of a supernet that others can learn from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from prune_nas.design.files import write_bytes
from prune_nas.design.records import SCHEMA
from prune_nas.design.space import Space
from prune_nas.errors import PruneNasError

Scores = dict[str, NDArray[np.float32]]


def save_scores(path: Path, scores: Scores, **about: object) -> None:
    """Write `scores.safetensors`; `about` goes into its metadata."""
    write_bytes(path, save_arrays(scores, {"meta": json.dumps({"schema": SCHEMA, **about})}))


def load_scores(path: Path, space: Space) -> Scores:
    """Read `scores.safetensors`.

    Raises:
        PruneNasError: the file is damaged or belongs to another space.
    """
    try:
        scores = load_arrays(path.read_bytes())
    except SafetensorError as error:
        raise PruneNasError(f"{path} is damaged ({error}). Delete it to have the supernet scored again") from error
    if any(slot.name not in scores or scores[slot.name].shape != (slot.ceiling,) for slot in space.slots):
        raise PruneNasError(f"{path} does not fit the run's space. Delete it to have the supernet scored again")
    return scores
