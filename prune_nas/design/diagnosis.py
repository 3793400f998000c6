"""Is a supernet sparse enough to read a shape from? Asked of the scores before anything is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prune_nas.design.selection import Scores, Selection
from prune_nas.design.space import Space

_DEAD = 0.02  # a channel whose score is below this share of the largest slot median carries next to nothing
_LEARNT = 0.05  # an accuracy that makes up less of the way from guessing to certainty is next to guessing
_MORE = 0.02  # of the channels, by which those that stay may outnumber those that carry something
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


def diagnose(
    space: Space,
    scores: Scores,
    strength: float,
    selections: Mapping[str, Selection],
    accuracy: float | None = None,
) -> Diagnosis:
    """Read the scores' distribution and the cuts that budgets made in it.

    Args:
        space: whose slots were scored.
        scores: one score per channel and slot.
        strength: the lambda they were trained with.
        selections: budget text -> the widths that were read from the scores under it.
        accuracy: of the supernet on validation, in [0, 1], where it is known.
    """
    pooled = np.concatenate([scores[slot.name] for slot in space.slots])
    top = max(float(np.median(scores[slot.name])) for slot in space.slots)
    dead = float((pooled < _DEAD * max(top, float(pooled.max()) / 10)).mean())
    tenth, middle = (float(np.quantile(pooled, q)) for q in (0.1, 0.5))
    guessing = 1 / space.classes
    learnt = accuracy is None or accuracy - guessing >= _LEARNT * (1 - guessing)
    separated = dead >= _SPARSE and learnt
    sentences = []
    if accuracy is not None and not learnt:
        sentences.append(
            f"the supernet did not learn ({100 * accuracy:.1f} % on validation, guessing {100 * guessing:.1f} %): "
            "its scores say nothing, nor do widths that are read from them; try more --supernet-epochs, more images or "
            f"--strength {strength / 3:.1g}"
        )
    sentences += [
        f"{100 * dead:.0f} % of the channels carry next to nothing (10th percentile of the scores {tenth:.2g}, "
        f"median {middle:.2g}): the scores are {'separated' if separated else 'not separated'}"
    ]
    if learnt and not separated:
        sentences.append(
            f"the cut falls among channels that all matter, so the widths say little; "
            f"train longer or try --strength {3 * strength:.1g}"
        )
    elif dead > 0.95:
        sentences.append(f"nearly every channel is gone; try --strength {strength / 3:.1g}")
    channels = len(pooled)
    for budget, selection in selections.items():
        kept = sum(selection.widths.values()) / channels
        if separated and kept > 1 - dead + _MORE:
            sentences.append(
                f"budget {budget}: {100 * kept:.0f} % of the channels stay, more than carry anything: the cut falls "
                f"among dead ones, whose order is noise; try --strength {strength / 2:.1g} "
                f"(it was {strength:.2g}), or a tighter budget"
            )
        if selection.floored:
            sentences.append(
                f"budget {budget}: its cut alone would leave {_some(selection.floored)} below the floor; "
                "the floor is kept"
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
