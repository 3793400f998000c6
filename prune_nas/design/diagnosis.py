"""Is a supernet sparse enough to read a shape from? Asked of the scores before anything is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prune_nas.design.selection import Scores, Selection
from prune_nas.design.space import Space

_DEAD = 0.02  # a channel whose score is below this share of the largest slot median carries next to nothing
_FEW = 5  # names in one sentence
_SPARSE = 0.05  # the share of dead channels from which gamma counts as separated


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the scores look like and what to do about it.

    `dead` is the share of channels that carry next to nothing, `tenth` and `median` are quantiles of all scores,
    `separated` whether there is a group of dead channels at all, `sentences` the reading in words.
    """

    dead: float
    tenth: float
    median: float
    separated: bool
    sentences: tuple[str, ...]


def diagnose(space: Space, scores: Scores, strength: float, selections: Mapping[str, Selection]) -> Diagnosis:
    """Read the scores' distribution and the cuts that budgets made in it.

    Args:
        space: whose slots were scored.
        scores: one score per channel and slot.
        strength: the lambda they were trained with.
        selections: budget text -> the widths that were read from the scores under it.
    """
    pooled = np.concatenate([scores[slot.name] for slot in space.slots])
    top = max(float(np.median(scores[slot.name])) for slot in space.slots)
    dead = float((pooled < _DEAD * max(top, float(pooled.max()) / 10)).mean())
    tenth, middle = (float(np.quantile(pooled, q)) for q in (0.1, 0.5))
    separated = dead >= _SPARSE
    sentences = [
        f"{100 * dead:.0f} % of the channels carry next to nothing (10th percentile of the scores {tenth:.3f}, "
        f"median {middle:.3f}): the scores are {'separated' if separated else 'not separated'}"
    ]
    if not separated:
        sentences.append(
            f"the cut falls among channels that all matter, so the widths say little; "
            f"train longer or try --strength {3 * strength:.1g}"
        )
    elif dead > 0.95:
        sentences.append(f"nearly every channel is gone; try --strength {strength / 3:.1g}")
    for budget, selection in selections.items():
        if selection.floored:
            sentences.append(
                f"budget {budget}: their values alone would leave {_some(selection.floored)} below the floor; "
                "they are kept at it"
            )
    return Diagnosis(dead, tenth, middle, separated, tuple(sentences))


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a selection cuts one slot: channels kept, and the smallest score among them."""

    slot: str
    kept: int
    score: float


def cuts(space: Space, scores: Scores, selection: Selection) -> list[Cut]:
    """The cut of every slot, in the scores' own unit whatever the selection ranked by."""
    return [
        Cut(slot.name, len(kept), float(scores[slot.name][list(kept)].min()))
        for slot in space.slots
        if (kept := selection.kept[slot.name])
    ]


def _some(names: Sequence[str]) -> str:
    """Names in words; of many the first few, and how many more."""
    shown = names if len(names) <= _FEW else names[: _FEW - 1]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(shown) < len(names) else "")
