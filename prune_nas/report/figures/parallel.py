"""The study's candidates as lines across the stages: which shapes did well."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from prune_nas.design.patterns import pattern_of, stage_means
from prune_nas.design.records import TrialRow
from prune_nas.design.space import Space
from prune_nas.report.figures import style


def candidates(trials: Iterable[TrialRow], space: Space, found: Mapping[str, int] | None = None) -> pd.DataFrame:
    """The mean keep ratio of every stage of each candidate of a study's first rung.

    Args:
        trials: of one budget; those that failed or repeat another are left out, and those trained longer.
        space: whose slots they choose the widths of.
        found: the widths that the study found, where it has ended.

    Returns:
        `number, value, found` and a column a stage (`stage 1`, ...), the best candidate last.
    """
    done = [trial for trial in trials if trial.value is not None and trial.epochs and trial.widths]
    first = min((trial.seed for trial in done), default=0)  # finalists have seeds of their own, which are higher
    names = [f"stage {i + 1}" for i in range(space.stages)]
    rows = [
        {
            "number": trial.number,
            "value": trial.value,
            "found": json.loads(trial.widths) == found,
            **dict(zip(names, stage_means(pattern_of(space, json.loads(trial.widths))), strict=True)),
        }
        for trial in done
        if trial.seed == first
    ]
    return pd.DataFrame(rows, columns=["number", "value", "found", *names]).sort_values(
        ["value", "number"], ascending=[True, False], ignore_index=True
    )  # of equals the first is the best, as in the study


def parallel(frame: pd.DataFrame, budget: str, stages: Sequence[str] = ()) -> Figure:
    """A line a candidate: what it keeps of each stage, coloured by its validation accuracy; best and found are bold.

    Args:
        frame: what `candidates` returns, with at least one line.
        budget: its text, for the title.
        stages: the stages' names; by default their numbers.
    """
    names = list(frame.columns[3:])
    places = np.arange(len(names))
    values = 100 * frame["value"].to_numpy()
    colours = mpl.colormaps["cividis"]
    scale = Normalize(values.min(), max(values.max(), values.min() + 0.1))
    figure = style.figure(max(6.5, 1.1 * len(names) + 2), 4.2)
    axes = figure.subplots()
    for row, value in zip(frame[names].to_numpy(), values, strict=True):
        axes.plot(places, row, color=colours(scale(value)), linewidth=1.4, marker="o", markersize=3)
    last = len(frame) - 1
    found = next((i for i, is_found in enumerate(frame["found"]) if is_found), None)
    marked = [(last, style.BLACK, "-", "best and found" if found == last else "best in short training")]
    if found not in (None, last):
        marked.append((found, style.VERMILION, "--", "found among the finalists"))
    for i, colour, line, words in marked:
        label = f"{words}: trial {frame['number'].iloc[i]}, {values[i]:.1f} %"
        axes.plot(places, frame[names].iloc[i], color=colour, linestyle=line, linewidth=2.4, marker="o", markersize=5,
                  label=label)  # fmt: skip
    for place in places:
        axes.axvline(float(place), color=style.LIGHT, linewidth=0.8, zorder=0)
    axes.set_xticks(places, [stages[i] if i < len(stages) else name for i, name in enumerate(names)])
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("kept of ceiling, mean of the stage")
    figure.colorbar(mpl.cm.ScalarMappable(scale, colours), ax=axes, label="validation accuracy, %", pad=0.02)
    figure.suptitle(f"The shapes that the study tried under {budget}", x=0.01, ha="left", fontsize=11)
    handles, labels = axes.get_legend_handles_labels()
    style.legend_below(figure, handles, labels=labels)
    return figure
