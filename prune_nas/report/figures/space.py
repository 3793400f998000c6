"""A network's space: which layers have a width of their own, which share one, and which are frozen."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from prune_nas.design.parts import size
from prune_nas.design.space import Space
from prune_nas.report.figures import style

_PRODUCERS = ("conv", "linear")


def layers(space: Space) -> pd.DataFrame:
    """Every conv and linear layer, from input to output: `layer, slot, stage, stage_name, channels`.

    A frozen layer has no slot; it stands in the stage of the one before it. Depthwise convolutions and norms follow
    other layers' widths and have no line.
    """
    owner = {name: slot for slot in space.slots for name in slot.layers}
    rows, stage = [], 0
    for layer in space.layers:
        if layer.kind in _PRODUCERS:
            slot = owner.get(layer.name)
            if slot is not None and layer.name == slot.name:
                stage = slot.stage
            name = slot.name if slot else ""
            rows.append((layer.name, name, stage, space.stage_names[stage], size(layer.outputs, space.base)))
    return pd.DataFrame(rows, columns=["layer", "slot", "stage", "stage_name", "channels"])


def space(frame: pd.DataFrame, model: str) -> Figure:
    """A box for every layer at its width, from input to output, stage by stage.

    Layers that share a slot have one colour and are joined by a line; frozen ones are hollow.

    Args:
        frame: as `layers` gives it.
        model: the network's name, for the title.
    """
    frame = frame.fillna({"slot": ""})  # read from a file, nothing is a missing value
    width = float(np.clip(2 + 0.22 * len(frame), 7.0, 15.0))
    figure = style.figure(width, 4.2)
    axes = figure.subplots()
    _bands(axes, frame, width)
    free = frame[frame["slot"] != ""]
    shared = [(name, own) for name, own in free.groupby("slot", sort=False) if len(own) > 1]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, (name, _) in enumerate(shared)}
    for name, own in shared:
        axes.plot(own.index[[0, -1]], [own["channels"].iloc[0]] * 2, color=colours[name], linewidth=1.4, zorder=2)
    boxes = min(0.8, 0.8 * 40 / max(len(frame), 40))
    for place, (slot, channels) in enumerate(zip(frame["slot"], frame["channels"], strict=True)):
        colour = colours.get(slot, style.BLACK) if slot else style.GREY
        _box(axes, place, channels, boxes, colour, hollow=not slot)
    axes.set_yscale("log", base=2)
    axes.set_ylim(frame["channels"].min() / 1.5, frame["channels"].max() * 1.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("channels of the base")
    axes.set_xlabel("conv and linear layers, from input to output")
    axes.set_xlim(-0.8, len(frame) - 0.2)
    axes.set_xticks([])
    style.grid(axes)
    joined = f", {len(shared)} of them shared by several layers" if shared else ""
    title = f"{model}: {free['slot'].nunique()} free widths{joined}, in {len(frame)} layers"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    style.legend_below(figure, _legend(bool(shared), len(free) < len(frame)), ncols=3)
    return figure


_COLOURS = (style.VERMILION, style.BLUE, style.GREEN, style.PURPLE, style.ORANGE, style.SKY)


def _legend(shared: bool, frozen: bool) -> list[Patch]:
    handles = [Patch(color=style.BLACK, label="a width of its own")]
    if shared:
        handles.append(Patch(color=style.VERMILION, label="joined: one width for all (a colour each)"))
    if frozen:
        handles.append(Patch(facecolor="white", edgecolor=style.GREY, label="frozen"))
    return handles


def _box(axes: Axes, place: int, channels: int, width: float, colour: str, *, hollow: bool) -> None:
    # On a logarithmic axis a box of constant height spans a constant factor.
    low, high = channels / 1.12, channels * 1.12
    axes.bar(
        place,
        high - low,
        width,
        bottom=low,
        color="white" if hollow else colour,
        edgecolor=colour,
        linewidth=1,
        zorder=3,
    )


def _bands(axes: Axes, frame: pd.DataFrame, width: float) -> None:
    """A band for each run of layers in one stage, named where the name fits."""
    room = (width - 1) / max(len(frame), 1)
    runs = groupby(enumerate(zip(frame["stage"], frame["stage_name"], strict=True)), key=lambda item: item[1])
    for i, ((stage, name), group) in enumerate(runs):
        places = [place for place, _ in group]
        first, last = places[0], places[-1]
        if i % 2 == 0:
            axes.axvspan(first - 0.5, last + 0.5, color=style.SHADE, zorder=0)
        label = name if 0.085 * len(name) < room * len(places) else str(stage)
        if 0.085 * len(label) < room * len(places):
            axes.text(
                (first + last) / 2,
                1.01,
                label,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                color=style.DIM,
            )
