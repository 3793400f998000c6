"""What the sparse training left: the channels' |gamma|, stage by stage, and where the budget cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from prune_nas.report.figures import style

BINS = 50
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))
Scores = Mapping[str, NDArray[np.floating[Any]]]
Cuts = Mapping[str, Mapping[str, tuple[int, float]]]


def gamma(scores: Scores, stages: Mapping[str, int], cuts: Cuts, names: Sequence[str] = ()) -> Figure:
    """A histogram of |gamma| a stage over one axis, with a line where each budget cuts.

    Args:
        scores: slot -> |gamma| of each of its channels.
        stages: slot -> its stage.
        cuts: budget -> slot -> channels kept and the smallest |gamma| among them; may be empty. The line of a stage
            stands at the median over its slots.
        names: the name of each stage; by default its number.
    """
    by_stage = pool(scores, stages)
    figure = style.figure(7.5, 1.3 + 1.3 * len(by_stage))
    panels = figure.subplots(len(by_stage), 1, sharex=True, squeeze=False)[:, 0]
    edges = np.linspace(0, max(float(values.max(initial=0)) for values in by_stage.values()) or 1.0, BINS + 1)
    for axes, (stage, values) in zip(panels, by_stage.items(), strict=True):
        axes.hist(values, edges, color=style.SKY, edgecolor=style.BLUE, linewidth=0.4)
        own = [[slots[slot] for slot in slots if stages.get(slot) == stage] for slots in cuts.values()]
        for line, places in zip(_styles(len(cuts)), own, strict=True):
            if places:
                cut = float(np.median([score for _, score in places]))
                axes.axvline(cut, color=style.VERMILION, linewidth=1.4, linestyle=line)
        name = names[stage] if stage < len(names) else f"stage {stage}"
        axes.set_title(_words(name, len(values), own))
        axes.set_yscale("log")
        axes.set_ylim(0.7, max(12, 1.3 * float(np.histogram(values, edges)[0].max())))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(edges[0], edges[-1])
        style.grid(axes)
    panels[-1].set_xlabel("|gamma| of a channel, mean over the norms of its slot")
    figure.supylabel("channels (log scale)", fontsize=10)
    figure.suptitle("What the penalty left of |gamma|, stage by stage", x=0.01, ha="left", fontsize=11)
    if cuts:
        handles = [
            Line2D([], [], color=style.VERMILION, linewidth=1.4, linestyle=line, label=f"cut at {budget}")
            for line, budget in zip(_styles(len(cuts)), cuts, strict=True)
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def pool(scores: Scores, stages: Mapping[str, int]) -> dict[int, NDArray[np.floating[Any]]]:
    """Stage -> the scores of all its slots' channels, in the order of stages."""
    order = sorted({stages[slot] for slot in scores})
    return {s: np.concatenate([scores[slot] for slot in scores if stages[slot] == s]) for s in order}


def _words(name: str, channels: int, cuts: Sequence[Sequence[tuple[int, float]]]) -> str:
    kept = [str(sum(number for number, _ in places)) for places in cuts]
    return f"{name}: {channels} channels" + (f", {' or '.join(kept)} kept" if kept else "")


def _styles(n: int) -> list[Any]:
    return [LINES[i % len(LINES)] for i in range(n)]
