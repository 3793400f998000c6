"""One look for every figure: Okabe and Ito's colours, 10 pt text, a marker for each arm so that grey prints read, too.

Figures are made without pyplot, so there is no global state and nothing to close. They are drawn for white paper. An
SVG turns dark by itself where its reader's page is dark; PNG and PDF do when they are asked to (`darken`).
"""

from __future__ import annotations

import hashlib
import io
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

BLACK, DIM, GREY, LIGHT, SHADE = "#000000", "#444444", "#6b6b6b", "#d0d0d0", "#f4f4f4"
ORANGE, SKY, GREEN = "#e69f00", "#56b4e9", "#009e73"
YELLOW = "#a39200"  # darker than theirs, which as a line on white cannot be seen
BLUE, VERMILION, PURPLE = "#0072b2", "#d55e00", "#cc79a7"
ON_LIGHT, ON_DARK = "#101010", "#fdfdfd"  # of text on a coloured area, which stays what it is on a dark page

DARK = {BLACK: "#ececec", "#ffffff": "#17181a", DIM: "#c8c8c8", GREY: "#a6a6a6", LIGHT: "#505358", SHADE: "#222528",
        "#e6e6e6": "#303337", BLUE: "#2f7fd0"}  # fmt: skip
"""What a colour becomes on a dark page; others stay."""

TWIN = "SHA-256 of the SVG"  # the key of a PNG's metadata that names the SVG of the same drawing

_BELOW = "below"  # the name of a legend that stands below the axes
_LINE = 0.16  # inches, of a note
_LETTERS_PER_INCH = 13  # of 9 pt text, on the safe side

RC: Any = {  # Any, since the type of its keys changes with matplotlib's version
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "savefig.facecolor": "auto",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "savefig.dpi": 150,
    "text.parse_math": False,  # names of slots and budgets may hold a $
    "svg.hashsalt": "prune-nas",  # the same run draws the same bytes
}


class Look(NamedTuple):
    """How an arm is drawn."""

    colour: str
    marker: str


LOOKS = {
    "base": Look(BLACK, "p"),
    "found": Look(VERMILION, "o"),
    "pruned": Look(BLUE, "s"),
    "guided": Look(SKY, "D"),
    "transferred": Look(YELLOW, "h"),
    "uniform": Look(GREY, "*"),
    "uniform@macs": Look(GREY, "<"),
    "uniform@params": Look(GREY, ">"),
    "uniform@latency": Look(GREY, "^"),
    "taper": Look(GREEN, "^"),
    "random": Look(PURPLE, "v"),
    "random (best)": Look(PURPLE, "P"),
    "inherited": Look(ORANGE, "X"),
}
OTHER = Look(GREY, "8")


def look(arm: str) -> Look:
    """The look of an arm, of several that are one network that of the first; one for all others."""
    return LOOKS.get(arm.partition(" = ")[0], OTHER)


def styled() -> AbstractContextManager[None]:
    """A block in which figures are made or rendered in this look."""
    return mpl.rc_context(RC)


def figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, laid out so that nothing is clipped."""
    return Figure(figsize=(width, height), layout="constrained")


def legend_below(
    figure: Figure, handles: Sequence[Any], *, labels: Sequence[str] | None = None, ncols: int = 1
) -> None:
    """Put a legend below all axes; a note that comes later stands above its entries."""
    figure.legend(
        handles=handles,
        labels=labels or [handle.get_label() for handle in handles],
        loc="outside lower left",
        ncols=ncols,
        alignment="left",
    ).set_gid(_BELOW)


def note(figure: Figure, text: str) -> None:
    """Add a remark below the axes, in lines as long as the figure is wide: what the reader must know to read it.

    The figure grows by the lines, so that the axes keep their size.
    """
    lines = textwrap.wrap(text, int(_LETTERS_PER_INCH * figure.get_figwidth()))
    below = next((legend for legend in figure.legends if legend.get_gid() == _BELOW), None)
    if below is None:
        figure.supxlabel("\n".join([figure.get_supxlabel(), *lines]).strip(), fontsize=9, color=GREY, x=0.01, ha="left")
    else:
        before = below.get_title().get_text()
        said = [] if before in ("", "None") else [before]
        below.set_title("\n".join([*said, *lines]), prop=FontProperties(size=9))
        below.get_title().set_color(GREY)
    figure.set_figheight(figure.get_figheight() + _LINE * len(lines))


def grid(axes: Axes) -> None:
    """Faint horizontal lines, to read values by."""
    axes.grid(axis="y")


def render(figure: Figure, form: str, *, twin: bytes | None = None) -> bytes:
    """The figure as a file of the format `svg`, `png` or `pdf`; the same figure always gives the same bytes.

    Args:
        figure: to render.
        form: the format.
        twin: the SVG of the same drawing, whose digest goes into a PNG, so that the two can be seen to belong together.
    """
    file = io.BytesIO()
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form, {})
    if form == "png" and twin is not None:
        metadata = {TWIN: hashlib.sha256(twin).hexdigest()}
    with styled():
        figure.savefig(file, format=form, metadata=metadata)
    return _adapting(file.getvalue()) if form == "svg" else file.getvalue()


def darken(figure: Figure) -> None:
    """Give the figure the colours of a dark page, for good."""
    with styled():
        figure.draw_without_rendering()  # ticks come into being when they are drawn
    for artist in figure.findobj():
        for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor", "markerfacecoloralt"):
            get, put = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
            if get is not None and put is not None:
                put(_darker(get()))
    for axes in figure.axes:
        axes.tick_params(colors=DARK[BLACK], grid_color=DARK["#e6e6e6"])


def _darker(colour: Any) -> Any:
    """A colour, or a list of them, on a dark page; transparency is kept."""
    if not isinstance(colour, str) and len(colour) == 0:
        return colour
    if isinstance(colour, str) and colour in ("none", "auto"):
        return colour
    many = np.atleast_2d(to_rgba_array(colour))
    swapped = [(*to_rgb(DARK.get(to_hex(one), to_hex(one))), one[3]) for one in many]
    return swapped[0] if len(swapped) == 1 else swapped


def _adapting(svg: bytes) -> bytes:
    """An SVG that takes the dark colours where the page that shows it is dark; paper and slides are light."""
    swaps = "".join(
        f'[style*="{paint}: {light}"] {{ {paint}: {dark} !important }}\n'
        for light, dark in DARK.items()
        for paint in ("fill", "stroke")
    )
    css = f"<style>@media screen and (prefers-color-scheme: dark) {{\nsvg {{ fill: {DARK[BLACK]} }}\n{swaps}}}</style>"
    return svg.replace(b"</svg>", css.encode() + b"\n</svg>")
