"""Colours and markers of methods, the same in every figure, and text prepared for drawing."""

from __future__ import annotations

import hashlib
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mimbench.display import describe_method, describe_metric, describe_task
from mimbench.errors import InputError, nearest

SIZE, SMALL = 7.0, 6.0
"""Of text, points."""
INK, SOFT = "#26282c", "#6b6e75"
CHANCE_DASH = (0, (4, 2))
"""Of the line at chance, and of its entry in the legend."""
_TIED = "\u00a0"
"""A space at which no line ends."""
_NAME = 28
"""Characters in a line of a name in a legend."""


DEFAULT_FONT = "DejaVu Sans"


@dataclass(frozen=True)
class Look:
    """A reader's choice of how figures look."""

    font: str = DEFAULT_FONT
    """Family of an installed font."""
    style: str = ""
    """Name or path of a matplotlib style, over the settings of mimbench."""
    dpi: int = 300
    """Of PNG."""


_look: ContextVar[Look | None] = ContextVar("_look", default=None)


def current_look() -> Look:
    return _look.get() or Look()


@contextmanager
def looking(look: Look) -> Iterator[None]:
    """Within this context, figures are drawn in this look.

    Raises:
        InputError: an unknown font or style.
    """
    _check_font(look.font)
    _check_style(look.style)
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)


def _check_font(font: str) -> None:
    if font == DEFAULT_FONT:
        return
    from matplotlib.font_manager import fontManager

    known = set(fontManager.get_font_names())
    if font not in known:
        raise InputError(f"--font {font!r}: no such font is installed{nearest(font, known)}; `fc-list` prints fonts")


def _check_style(style: str) -> None:
    if not style:
        return
    from matplotlib.style import context

    try:
        with context(style):
            pass
    except (OSError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise InputError(
            f"--style {style!r}: no matplotlib style of this name, and no such file ({problem})"
        ) from error


@dataclass(frozen=True)
class MethodStyle:
    """Colour, marker and (for bars) hatch of a method."""

    colour: str
    marker: str
    hatch: str = ""


_OTHER_COLOURS = ("#332288", "#882255", "#117733", "#999933", "#aa4499", "#ca9161", "#661100", "#44aa99")
"""Most from Paul Tol's "muted" scheme (SRON/EPS/TN/09-002), which is made for the same readers."""
_OTHER_MARKERS = ("<", ">", "h", "8", "d", "H", "P", "X")
_OTHER_HATCHES = ("////", "\\\\\\\\", "xxxx", "||||", "----", "++++")


def method_style(method: str) -> MethodStyle:
    """How a method is drawn: as its display file says, else by a hash of its name.

    It depends on nothing but the method, so that no method changes its style when others join.
    """
    display = describe_method(method)
    digest = hashlib.sha256(method.encode("utf-8", "surrogatepass")).digest()
    colour, marker, hatch = (
        choices[byte % len(choices)]
        for choices, byte in zip((_OTHER_COLOURS, _OTHER_MARKERS, _OTHER_HATCHES), digest, strict=False)
    )
    # Hashed colours may coincide, so that a hatch helps; chosen colours need none.
    return MethodStyle(display.colour or colour, display.marker or marker, "" if display.colour else hatch)


def lightened(colour: str, share: float) -> tuple[float, float, float]:
    """`colour` mixed with `share` of white, for a second setting of one method."""
    from matplotlib.colors import to_rgb

    red, green, blue = ((1 - share) * part + share for part in to_rgb(colour))
    return red, green, blue


@contextmanager
def drawing() -> Iterator[None]:
    """Settings under which figures are made and saved, whatever a user's matplotlibrc says.

    Nothing in a text is taken for mathematics. Text stays text: with its TrueType font in PDF, as text in SVG.
    """
    import matplotlib
    import seaborn

    look = current_look()
    settings: Any = {**seaborn.axes_style("ticks"), **_settings()}
    fixed: Any = {**_FIXED, "font.family": list(dict.fromkeys([look.font, DEFAULT_FONT]))}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        if look.style:
            from matplotlib import style

            style.use(look.style)
        matplotlib.rcParams.update(fixed)
        # A name in letters that the font lacks shows boxes; that is no reason to fill the terminal.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


_FIXED = {
    "text.parse_math": False,
    "text.usetex": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "mimbench",
    "savefig.dpi": "figure",
    "savefig.bbox": None,
}
"""Settings that no style changes."""


def _settings() -> dict[str, Any]:
    return {
        "font.size": SIZE,
        "text.color": INK,
        "axes.labelsize": SIZE,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.titlesize": SIZE,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        "axes.formatter.use_mathtext": False,
        "grid.color": "#e3e4e6",
        "grid.linewidth": 0.5,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.minor.size": 1.5,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "legend.handlelength": 1.8,
        "legend.columnspacing": 1.2,
        "lines.linewidth": 1.1,
        "lines.markersize": 3.8,
        "hatch.linewidth": 0.4,
        "figure.constrained_layout.h_pad": 0.03,
        "figure.constrained_layout.w_pad": 0.03,
    }


def clean(text: Any) -> str:
    """Text from a record, prepared for drawing: one line of printable characters."""
    printable = (c if c.isprintable() or c == _TIED else "\ufffd" if not c.isspace() else " " for c in str(text))
    return re.sub(" +", " ", "".join(printable)).strip()


def wrap(text: Any, characters: int = _NAME, lines: int = 3) -> str:
    """Cleaned text in at most `lines` lines; longer text ends in an ellipsis."""
    characters = max(characters, 4)
    wrapped = textwrap.wrap(clean(text), characters)
    if len(wrapped) > lines:
        wrapped[lines - 1 :] = [f"{wrapped[lines - 1][: characters - 1]}…"]
    return "\n".join(wrapped) or "-"


def wrap_to_width(text: str, inches: float, size: float = SIZE, weight: str = "normal", lines: int = 12) -> str:
    """`text` wrapped to a width, as the font in `size` points takes it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    text = clean(text)
    font = FontProperties(family=[current_look().font, DEFAULT_FONT], size=size, weight=weight)
    widest = TextToPath().get_text_width_height_descent(text or " ", font, False)[0] / 72
    characters = max(8, int(len(text) * inches / widest * 0.97))
    return wrap(text, characters, lines)


def method_label(method: str) -> str:
    """A method as figures call it."""
    return clean(describe_method(method).label or method)


def task_label(task: str) -> str:
    """A task as figures call it."""
    return clean(describe_task(task).label or task)


_UNITS = {"percent": "%"}


def metric_label(task: str, metric: str, unit: str) -> str:
    """A metric as an axis calls it: "Top-1 accuracy (%)". `unit`: as the task declares it."""
    display = describe_metric(task, metric)
    shown = _UNITS.get(unit, unit) if display.unit is None else display.unit
    return f"{clean(display.label)} ({clean(shown)})" if shown else clean(display.label)


def device_label(device: str) -> str:
    """A record's device as an axis calls it: "cpu, 4 threads" is 4 CPU threads."""
    cpu = re.fullmatch(r"cpu, (\d+) threads?", device)
    return f"{cpu[1]} CPU thread{'' if cpu[1] == '1' else 's'}" if cpu else clean(device)
