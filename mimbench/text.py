"""Text that can be printed anywhere.

Terminals obey control characters and lack some signs; spreadsheets compute formulas.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# C0 and C1 controls, line separators, bidirectional marks, overrides and isolates, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FORMULA = re.compile("\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]")
"""What a cell that spreadsheets compute begins with; in East Asian settings, full-width signs count too."""
_HANDLER = "mimbench-plain"
_PLAIN = str.maketrans(
    {
        "±": "+-",
        "Δ": "d",
        "→": "->",
        "≥": ">=",
        "≤": "<=",
        "…": "...",
        "×": "x",
        "µ": "u",
        "σ": "s",
        **dict.fromkeys("–—−‐‑", "-"),
        **dict.fromkeys("“”„", '"'),
        **dict.fromkeys("‘’", "'"),
        **dict.fromkeys("─━╌╍═", "-"),
        **dict.fromkeys("│┃║", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╸╺", "+"),
        **dict.fromkeys("\u00a0\u202f\u2009", " "),
    }
)
"""ASCII replacements for characters that the encoding of a terminal or file cannot write."""


def visible(text: str, keep: str = "") -> str:
    """The text with each control and bidirectional character as an escape: ESC as "\\u001b"; those in `keep` stay.

    The escapes are those of JSON, so that JSON stays JSON.
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def list_first(items: Sequence[str], most: int = 3) -> str:
    """The first items, and how many more there are: "a, b, c and 2 more"."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def natural_key(text: str) -> list[tuple[int, float, str]]:
    """A sort key by which numbers in a text compare by value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(1, float(part), "") if index % 2 else (0, 0.0, part) for index, part in enumerate(parts)]


def align_columns(rows: Sequence[Sequence[str]], heads: int = 1) -> list[str]:
    """Rows as lines: columns padded with spaces, and a rule below the first `heads` rows."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines[:heads], "  ".join("-" * width for width in widths), *lines[heads:]]


def format_duration(seconds: float) -> str:
    """A rounded duration: "40 s", "12 min", "3 h 5 min", "2 d 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def printable(path: str | Path) -> str:
    """A path or name for a message: undecodable bytes and control characters are shown as escapes."""
    return visible(os.fsencode(path).decode("utf-8", "backslashreplace"))


def quoted(value: object) -> str:
    """A value of a file as an error message shows it: one short line, whatever the value is."""
    text = ascii(value) if isinstance(value, str) and not _is_encodable(value) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON may hold
        return False
    return True


def spreadsheet_text(text: str) -> str:
    """Visible text for a cell of a CSV file that no spreadsheet computes: "'=1+1"; plain numbers stay as they are."""
    text = visible(text)
    starts_formula = _FORMULA.match(text) or text.startswith(tuple(_SHORT.values()))
    return f"'{text}" if starts_formula and not _NUMBER.fullmatch(text) else text


def print_text(text: str, *, end: str = "\n", error: bool = False) -> None:
    """Print lines on standard output, or standard error, with nothing in them that a terminal obeys."""
    print(visible(text, keep="\n\t"), end=end, file=sys.stderr if error else sys.stdout)


def print_any_text() -> None:
    """Let standard output and error take any text: signs that their encoding lacks are replaced by plain ones."""
    codecs.register_error(_HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def print_line(text: str, *, error: bool = False) -> None:
    """Print one line, even if the text holds line breaks."""
    print_text(visible(text), error=error)


def _escape(sign: str) -> str:
    return _SHORT.get(sign) or f"\\u{ord(sign):04x}"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(sign if sign.isascii() else "?" for sign in text), error.end
