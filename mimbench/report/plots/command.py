"""`mimbench plot`: which figures are asked for, and where they go."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from mimbench.display import check_labels
from mimbench.errors import InputError, nearest
from mimbench.report.plots.kinds import ALL, draw_kinds, require_kind
from mimbench.report.plots.sheet import FORMATS, save
from mimbench.report.plots.source import NothingToPlot, Options, Source

WIDTHS = (2.0, 20.0)
"""Least and largest width, inches."""


def plot_command(
    kind: str, options: Options, *, results: Path, output: Path, formats: Sequence[str], say: Callable[[str], None]
) -> None:
    """Draw and write; `say` gets a line for each file and caption, and for each kind of `all` that cannot be drawn.

    A figure that is too high for a page is written as several files: NAME-1, NAME-2, ...

    Raises:
        InputError: anything that cannot be drawn or written.
    """
    require_kind(kind)
    if not WIDTHS[0] <= options.width <= WIDTHS[1]:
        raise InputError(f"--width {options.width:g}: inches, from {WIDTHS[0]:g} to {WIDTHS[1]:g}")
    folder, file, formats = _target(kind, output, formats)
    written, reasons = 0, []
    source = Source.read(results)
    check_labels(body["method"]["name"] for body in source.bodies.values())
    for name, result in draw_kinds(kind, source, options):
        if isinstance(result, NothingToPlot):
            reasons.append(str(result))
            say(f"skipped {name}: {result}")
            continue
        captions = dict.fromkeys(str(figure.get_label()) for figure in result if not options.caption)
        for number, figure in enumerate(result, start=1):
            part = f"-{number}" if len(result) > 1 else ""
            for format in formats:
                path = file.with_stem(f"{file.stem}{part}") if file else folder / f"{_safe(name)}{part}.{format}"
                say(f"written: {save(figure, path)}")
                written += 1
        for text in filter(None, captions):
            say(f"caption: {text}")
    if not written:
        raise InputError(f"nothing to plot in {results}: {len(reasons)} kinds were skipped, for the reasons above")


def _target(kind: str, output: Path, formats: Sequence[str]) -> tuple[Path, Path | None, Sequence[str]]:
    """The folder, or the file, and the formats to write."""
    for format in formats:
        if format not in FORMATS:
            raise InputError(f"unknown plot format {format!r}{nearest(format, FORMATS)}")
    suffix = output.suffix.lower().removeprefix(".")
    if suffix not in FORMATS or output.is_dir():
        if suffix and not output.is_dir() and len(suffix) <= 4 and suffix.isalpha():
            raise InputError(f"--output {output}: a folder, or a file that ends in {', '.join(FORMATS)}")
        return output, None, formats or FORMATS
    if kind == ALL:
        raise InputError(f"--output {output}: several figures go into a folder, not into one file")
    if formats and list(formats) != [suffix]:
        raise InputError(f"--output {output} is one file, and --format asks for {', '.join(formats)}; give a folder")
    return output.parent, output, (suffix,)


def _safe(name: str) -> str:
    """A file name without separators: paths that were varied come from records, which are not trusted."""
    return re.sub(r"[^\w.-]+", "_", name)[:120].strip(".") or "plot"
