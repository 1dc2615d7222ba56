"""How methods look, everywhere the same, and how text is made fit to be drawn."""

from __future__ import annotations

import hashlib
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

SIZE, SMALL = 7.0, 6.0
"""Of text, points."""
INK, SOFT = "#26282c", "#6b6e75"
_TIED = "\u00a0"
"""A space at which no line ends."""
_NAME = 28
"""Characters in a line of a name in a legend."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and (for bars) hatch of a method."""

    colour: str
    marker: str
    hatch: str = ""


LOOKS = {
    # Controls in greys.
    "random-init": Look("#9a9a9a", "X"),
    "autoencoder": Look("#6e6e6e", "p"),
    "supervised": Look("#333333", "*"),
    # seaborn's "colorblind" palette, which is told apart under the three common colour-vision deficiencies.
    "simmim": Look("#0173b2", "o"),
    "simmim-pixel": Look("#56b4e9", "P"),
    "mae": Look("#de8f05", "s"),
    "beit": Look("#029e73", "^"),
    "maskfeat": Look("#d55e00", "D"),
    "data2vec": Look("#cc78bc", "v"),
}
"""Of the built-in methods, in the order in which they are drawn."""
_OTHER_COLOURS = ("#332288", "#882255", "#117733", "#999933", "#aa4499", "#ca9161", "#661100", "#44aa99")
"""Most from Paul Tol's "muted" scheme (SRON/EPS/TN/09-002), which is made for the same readers."""
_OTHER_MARKERS = ("<", ">", "h", "8", "d", "H", "P", "X")
_OTHER_HATCHES = ("////", "\\\\\\\\", "xxxx", "||||", "----", "++++")


def look(method: str) -> Look:
    """A function of the name alone, so that no method changes when others join: third parties' by a hash of it."""
    known = LOOKS.get(method)
    if known:
        return known
    digest = hashlib.sha256(method.encode("utf-8", "surrogatepass")).digest()
    return Look(
        _OTHER_COLOURS[digest[0] % len(_OTHER_COLOURS)],
        _OTHER_MARKERS[digest[1] % len(_OTHER_MARKERS)],
        _OTHER_HATCHES[digest[2] % len(_OTHER_HATCHES)],
    )


def order(method: str) -> tuple[int, str]:
    """Sort key: controls, the built-in methods, all others by name."""
    known = list(LOOKS)
    return (known.index(method) if method in known else len(known), method)


def lightened(colour: str, share: float) -> tuple[float, float, float]:
    """`colour` mixed with `share` of white, for a second setting of one method."""
    from matplotlib.colors import to_rgb

    red, green, blue = ((1 - share) * part + share for part in to_rgb(colour))
    return red, green, blue


@contextmanager
def drawing() -> Iterator[None]:
    """Settings under which figures are made and saved, whatever a user's matplotlibrc says.

    Nothing in a text is taken for mathematics. Fonts are embedded: as TrueType in PDF, as outlines in SVG.
    """
    import matplotlib
    import seaborn

    settings: Any = {**seaborn.axes_style("ticks"), **_settings()}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A name in letters that the font lacks shows boxes; that is no reason to fill the terminal.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _settings() -> dict[str, Any]:
    return {
        "text.parse_math": False,
        "text.usetex": False,
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "mimbench",
        "font.family": ["DejaVu Sans"],
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
        "savefig.dpi": "figure",
        "savefig.bbox": None,
        "figure.constrained_layout.h_pad": 0.03,
        "figure.constrained_layout.w_pad": 0.03,
    }


def clean(text: Any) -> str:
    """Text from a record, fit to be drawn: one line, nothing unprintable in it."""
    printable = (c if c.isprintable() or c == _TIED else "\ufffd" if not c.isspace() else " " for c in str(text))
    return re.sub(" +", " ", "".join(printable)).strip()


def wrapped(text: Any, characters: int = _NAME, lines: int = 3) -> str:
    """Cleaned text in at most `lines` lines; what is longer ends in an ellipsis."""
    characters = max(characters, 4)
    found = textwrap.wrap(clean(text), characters)
    if len(found) > lines:
        found[lines - 1 :] = [f"{found[lines - 1][: characters - 1]}…"]
    return "\n".join(found) or "-"


def fitted(text: str, inches: float, size: float = SIZE, weight: str = "normal", lines: int = 12) -> str:
    """`text` wrapped to a width, as DejaVu Sans of `size` points takes it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    text = clean(text)
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    widest = TextToPath().get_text_width_height_descent(text or " ", font, False)[0] / 72
    characters = max(8, int(len(text) * inches / widest * 0.97))
    return wrapped(text, characters, lines)


_METRICS = {
    "AP": "Box AP",
    "AP50": "Box AP50",
    "AP75": "Box AP75",
    "mIoU": "Mean IoU",
    "mAcc": "Mean class accuracy",
    "aAcc": "Pixel accuracy",
    "ece": "Expected calibration error",
    "degradation": "Top-1 accuracy lost to corruption",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "hidden_mae": "Mean absolute error of hidden pixels",
    "hidden_mse": "Mean squared error of hidden pixels",
    "frechet": "Fréchet distance",
}
_KINDS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"top(\d+)(?:_(.+))?", lambda found: f"Top-{found[1]} accuracy{_condition(found[2])}"),
    (r"held_out_(.+)", lambda found: f"{_name(found[1])}, held-out part"),
    (r"mask_(AP.*)", lambda found: _name(found[1]).replace("Box", "Mask")),
    (r"AP_(small|medium|large)", lambda found: f"Box AP, {found[1]} objects"),
)
"""Families of metrics: what their names look like, and what a reader calls them."""
_UNITS = {"percent": "%", "index": "", "squared distance": "squared"}


def metric_label(metric: str, unit: str) -> str:
    """A metric as an axis calls it: "Top-1 accuracy (%)"."""
    unit = _UNITS.get(unit, clean(unit))
    return f"{_name(metric)} ({unit})" if unit else _name(metric)


def _name(metric: str) -> str:
    if metric in _METRICS:
        return _METRICS[metric]
    for pattern, name in _KINDS:
        if found := re.fullmatch(pattern, metric):
            return name(found)
    return clean(metric)


def _condition(text: str | None) -> str:
    """Under what an accuracy was measured: "k20", "5shot", "1percent", "best_layer"."""
    if not text:
        return ""
    if found := re.fullmatch(r"k(\d+)", text):
        return f", k{_TIED}={_TIED}{found[1]}"
    if found := re.fullmatch(r"(\d+)_?shot", text):
        return f", {found[1]} label{'' if found[1] == '1' else 's'} a class"
    if found := re.fullmatch(r"(\d+)_?percent", text):
        return f", {found[1]}{_TIED}% of the labels"
    return f", {clean(text.replace('_', ' '))}"


def device_label(device: str) -> str:
    """A record's device as an axis calls it: "cpu, 4 threads" is 4 CPU threads."""
    found = re.fullmatch(r"cpu, (\d+) threads?", device)
    return f"{found[1]} CPU thread{'' if found[1] == '1' else 's'}" if found else clean(device)
