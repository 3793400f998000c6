"""Is a supernet sparse enough to read a shape from? Asked of the scores before anything is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prune_nas.design.learning import Chance
from prune_nas.design.selection import Scores, Selection
from prune_nas.design.space import Space
from prune_nas.design.words import percent

_DEAD = 0.02  # a channel whose score is below this share of where gamma started carries next to nothing
_ALL = 0.95  # a share of dead channels from which a supernet counts as dead
_MORE = 0.02  # of the channels, by which those that stay may outnumber those that carry something
_FEW = 5  # names in one sentence
_SPARSE = 0.05  # the share of dead channels from which gamma counts as separated


@dataclass(frozen=True, slots=True)
class Supernet:
    """What is known of a trained supernet.

    Attributes:
        strength: the lambda that its penalty ended with; None where it had no penalty.
        gamma: the size of its gammas before the training; None where the network has no gamma.
        accuracy: on validation, in [0, 1]; None where it is not known.
        chance: what guessing reaches there.
        epochs: that it was trained.
    """

    strength: float | None
    gamma: float | None
    accuracy: float | None
    chance: Chance
    epochs: int

    @property
    def learnt(self) -> bool:
        """Whether it is better than guessing; taken for true where its accuracy is not known."""
        return self.accuracy is None or self.chance.is_beaten(self.accuracy)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the scores look like and what to do about it.

    `dead` is the share of channels that carry next to nothing, `tenth` and `median` are quantiles of all scores,
    `separated` whether there is a group of dead channels at all, `learnt` whether the supernet is better than guessing,
    `sentences` the reading in words.
    """

    dead: float
    tenth: float
    median: float
    separated: bool
    learnt: bool
    sentences: tuple[str, ...]


def diagnose(space: Space, scores: Scores, supernet: Supernet, selections: Mapping[str, Selection]) -> Diagnosis:
    """Read the scores' distribution and the cuts that budgets made in it.

    Args:
        space: whose slots were scored.
        scores: one score per channel and slot.
        supernet: that gave the scores.
        selections: budget text -> the widths that were read from the scores under it.
    """
    pooled = np.concatenate([scores[slot.name] for slot in space.slots])
    start = 1.0 if supernet.gamma is None else supernet.gamma
    dead = float((pooled < _DEAD * start).mean())
    tenth, middle = (float(np.quantile(pooled, q)) for q in (0.1, 0.5))
    separated = _SPARSE <= dead < _ALL and supernet.learnt
    sentences = [*_about_learning(supernet), *_about_scores(supernet, dead, tenth, middle, separated)]
    channels = len(pooled)
    for budget, selection in selections.items():
        kept = sum(selection.widths.values()) / channels
        if separated and kept > 1 - dead + _MORE:
            sentences.append(
                f"budget {budget}: {100 * kept:.0f} % of the channels stay, more than carry anything. The order of the "
                "dead channels among them is noise. Take a tighter budget, or a weaker penalty"
                f"{_half(supernet.strength)}."
            )
        if selection.floored:
            sentences.append(
                f"budget {budget}: the cut alone would leave {_some(selection.floored)} below the floor. They stay at "
                "the floor."
            )
    return Diagnosis(dead, tenth, middle, separated, supernet.learnt, tuple(sentences))


def _about_learning(supernet: Supernet) -> list[str]:
    if supernet.learnt or supernet.accuracy is None:
        return []
    strength = supernet.strength
    other = "another --optimizer" if strength is None else f"a weaker penalty (--strength {strength / 3:.1g})"
    return [
        f"the supernet did not learn ({percent(supernet.accuracy)} on validation, guessing gives "
        f"{percent(supernet.chance.guessing)}), so its scores and the widths that are read from them mean nothing. "
        f"Train longer (--supernet-epochs was {supernet.epochs}), on more images, or with {other}."
    ]


def _about_scores(supernet: Supernet, dead: float, tenth: float, middle: float, separated: bool) -> list[str]:
    if supernet.gamma is None:
        return ["the network has no BatchNorm: its channels are scored by the norms of their weights"]
    said = [
        f"{100 * dead:.0f} % of the channels carry next to nothing (|gamma| below {_DEAD * supernet.gamma:.2g}, it "
        f"started at {supernet.gamma:.2g}, 10th percentile {tenth:.2g}, median {middle:.2g})"
    ]
    if separated:
        said.append("these channels stand apart from the others, so widths can be read from the scores")
    elif dead >= _ALL:
        said.append(f"nearly every channel is dead: take a weaker penalty{_half(supernet.strength)}")
    elif supernet.learnt and not separated:
        stronger = "" if supernet.strength is None else f" (--strength {3 * supernet.strength:.1g})"
        said.append(
            f"no channels stand apart, so the widths say little. Train longer, or with a stronger penalty{stronger}."
        )
    return said


def _half(strength: float | None) -> str:
    return "" if strength is None else f" (--strength {strength / 2:.1g}, it was {strength:.2g})"


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
