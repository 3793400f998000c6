"""Where the weights sit that pruning leaves: a 3x3 heat map a stage, as the paper draws them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from prune_nas.design.kernels import KernelMean
from prune_nas.report.figures import style

_DARK = 0.6  # of the scale: above it numbers are white


def kernels(rules: Sequence[tuple[str, KernelMean]]) -> Figure:
    """A row a rule and a column a stage: the keep probability of each place of the stage's 3x3 kernels, in percent.

    Each row has a scale of its own, from 0 to its largest probability.

    Args:
        rules: what a row is called, and its rule.
    """
    columns = max(rule.stages for _, rule in rules)
    figure = style.figure(1.25 * columns + 1.6, 1.5 * len(rules) + 0.5)
    grid = figure.subplots(len(rules), columns, squeeze=False)
    for number, (row, (name, rule)) in enumerate(zip(grid, rules, strict=True)):
        top = max(max(nine) for nine in rule.ratios)
        for stage, axes in enumerate(row):
            if stage >= rule.stages:
                axes.set_axis_off()
                continue
            cells = 100 * np.reshape(rule.ratios[stage], (3, 3))
            axes.imshow(cells, cmap="Blues", vmin=0, vmax=100 * top)
            for (y, x), share in np.ndenumerate(cells):
                colour = "white" if share > 100 * _DARK * top else style.BLACK
                axes.text(x, y, f"{share:.0f}" if share >= 9.95 else f"{share:.1f}", ha="center", va="center",
                          fontsize=8, color=colour)  # fmt: skip
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(f"{100 * np.mean(rule.ratios[stage]):.1f} %", fontsize=9)
            if number == 0:
                axes.set_title(f"stage {stage + 1}", loc="center")
        row[0].set_ylabel(name.replace(", ", "\n"), rotation=0, ha="right", va="center")
    style.note(figure, "kept of the weights at each place of 3x3 kernels, %; below each map the stage's mean")
    return figure
