"""Signs that a terminal or file cannot show, replaced by plain ones."""

from __future__ import annotations

import codecs
import sys

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


def print_any_text() -> None:
    """Make standard output and error take any text: what their encoding lacks is replaced, never an error."""
    codecs.register_error(_HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(sign if sign.isascii() else "?" for sign in text), error.end
