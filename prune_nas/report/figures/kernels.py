"""Where the weights sit that pruning leaves: a 3x3 heat map a stage, as the paper draws them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prune_nas.design.kernels import KernelMean
from prune_nas.report.figures import style

_DARK = 0.6  # of the scale: above it numbers are white


def places(rules: Sequence[tuple[str, KernelMean]]) -> pd.DataFrame:
    """Rules with their names as a table, `rule, stage, place, share`: place 0 to 8, row by row."""
    rows = [
        (name, stage, place, share)
        for name, rule in rules
        for stage, nine in enumerate(rule.ratios)
        for place, share in enumerate(nine)
    ]
    return pd.DataFrame(rows, columns=["rule", "stage", "place", "share"])


def kernels(frame: pd.DataFrame) -> Figure:
    """A row a rule and a column a stage: the keep probability of each place of the stage's 3x3 kernels, in percent.

    Each row has a scale of its own, from 0 to its largest probability.

    Args:
        frame: what `places` returns.
    """
    names = list(frame["rule"].unique())
    columns = int(frame["stage"].max()) + 1
    figure = style.figure(1.25 * columns + 1.6, 1.5 * len(names) + 0.5)
    grid = figure.subplots(len(names), columns, squeeze=False)
    for number, (row, name) in enumerate(zip(grid, names, strict=True)):
        own = frame[frame["rule"] == name]
        top = own["share"].max()
        for stage, axes in enumerate(row):
            nine = own.loc[own["stage"] == stage].sort_values("place")["share"].to_numpy()
            if not len(nine):
                axes.set_axis_off()
                continue
            cells = 100 * np.reshape(nine, (3, 3))
            axes.imshow(cells, cmap="Blues", vmin=0, vmax=100 * top)
            for (y, x), share in np.ndenumerate(cells):
                colour = style.ON_DARK if share > 100 * _DARK * top else style.ON_LIGHT
                axes.text(x, y, f"{share:.0f}" if share >= 9.95 else f"{share:.1f}", ha="center", va="center",
                          fontsize=8, color=colour)  # fmt: skip
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(f"{np.mean(cells):.1f} %", fontsize=9)
            if number == 0:
                axes.set_title(f"stage {stage + 1}", loc="center")
        row[0].set_ylabel(name.replace(", ", "\n"), rotation=0, ha="right", va="center")
    style.note(
        figure,
        "Share of the weights that stay at each place of 3x3 kernels, in %. Below each map: the mean of the stage.",
    )
    return figure
