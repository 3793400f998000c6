"""A network's space: which layers have a width of their own, which share one, and which are frozen."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from prune_nas.design.space import Layer, Space, size
from prune_nas.report.figures import style

_PRODUCERS = ("conv", "linear")


def space(space: Space) -> Figure:
    """A box for every conv and linear layer at its width, from input to output, stage by stage.

    Layers that share a slot have one colour and are joined by a line; frozen ones are hollow. Depthwise convolutions
    and norms follow other layers' widths and have no box.
    """
    layers = [layer for layer in space.layers if layer.kind in _PRODUCERS]
    owner = {name: slot.name for slot in space.slots for name in slot.layers}
    places = {layer.name: i for i, layer in enumerate(layers)}
    width = float(np.clip(2 + 0.22 * len(layers), 7.0, 15.0))
    figure = style.figure(width, 4.2)
    axes = figure.subplots()
    _bands(axes, space, layers, owner, width)
    shared = [slot for slot in space.slots if len(slot.layers) > 1]
    colours = {slot.name: _COLOURS[i % len(_COLOURS)] for i, slot in enumerate(shared)}
    for slot in shared:
        at = sorted(places[name] for name in slot.layers)
        axes.plot([at[0], at[-1]], [space.base[slot.name]] * 2, color=colours[slot.name], linewidth=1.4, zorder=2)
    boxes = min(0.8, 0.8 * 40 / max(len(layers), 40))
    for layer in layers:
        name = owner.get(layer.name)
        channels = size(layer.outputs, space.base)
        colour = style.GREY if name is None else colours.get(name, style.BLACK)
        _box(axes, places[layer.name], channels, boxes, colour, hollow=name is None)
    drawn = [size(layer.outputs, space.base) for layer in layers]
    axes.set_yscale("log", base=2)
    axes.set_ylim(min(drawn) / 1.5, max(drawn) * 1.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("channels of the base")
    axes.set_xlabel("conv and linear layers, from input to output")
    axes.set_xlim(-0.8, len(layers) - 0.2)
    axes.set_xticks([])
    style.grid(axes)
    figure.suptitle(_title(space, len(layers)), x=0.01, ha="left", fontsize=11)
    figure.legend(handles=_legend(bool(shared), len(owner) < len(layers)), loc="outside lower left", ncols=3)
    return figure


_COLOURS = (style.VERMILION, style.BLUE, style.GREEN, style.PURPLE, style.ORANGE, style.SKY)


def _title(space: Space, layers: int) -> str:
    shared = sum(len(slot.layers) > 1 for slot in space.slots)
    joined = f", {shared} of them shared by several layers" if shared else ""
    return f"{space.model}: {len(space.slots)} free widths{joined}, in {layers} layers"


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


def _bands(axes: Axes, space: Space, layers: list[Layer], owner: dict[str, str], width: float) -> None:
    """A band for each run of layers in one stage, named where the name fits."""
    runs = list(_runs(space, layers, owner))
    room = (width - 1) / max(len(layers), 1)
    for i, (stage, first, last) in enumerate(runs):
        if i % 2 == 0:
            axes.axvspan(first - 0.5, last + 0.5, color=style.SHADE, zorder=0)
        name = space.stage_names[stage]
        label = name if 0.085 * len(name) < room * (last - first + 1) else str(stage)
        if 0.085 * len(label) < room * (last - first + 1):
            axes.text(
                (first + last) / 2,
                1.01,
                label,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                color=style.DIM,
            )


def _runs(space: Space, layers: list[Layer], owner: dict[str, str]) -> Iterator[tuple[int, int, int]]:
    """(stage, first, last) of every run; a layer without a slot stands in the stage of the one before it."""
    stages, stage = [], 0
    for layer in layers:
        if layer.name in owner:
            slot = space.by_name[owner[layer.name]]
            stage = slot.stage if layer.name == slot.name else stage
        stages.append(stage)
    for value, group in groupby(enumerate(stages), key=lambda item: item[1]):
        places = [place for place, _ in group]
        yield value, places[0], places[-1]
