"""The viewer: a template, a style and a script that turn the data of a report into one HTML file.

`mimbench.report.page` gathers the data. Nothing in this room reads records.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from mimbench.text import visible

PURE_SCRIPTS = ("format.js", "statistics.js", "csv.js", "toml.js", "filter.js", "scale.js")
"""Modules of pure functions, which need neither a page nor its data."""
SCRIPTS = (
    *PURE_SCRIPTS,
    # What the views are made of.
    *("elements.js", "data.js", "files.js", "controls.js", "table.js", "address.js", "selection.js"),
    *("chart.js", "curves.js", "ranking.js"),
    # One view each.
    *("running.js", "leaderboard.js", "runs.js", "samples.js", "run.js", "compare.js", "ablations.js", "failures.js"),
    *("published.js", "downloads.js", "router.js", "live.js"),
)
"""Modules of the script, in the order in which they are joined: each uses only names of those before it to load."""
MADE_BY = '<meta name="generator" content="mimbench report">'
"""The line by which a page of ours is recognised."""
_ESCAPE = re.compile(r'\\(?:["\\nt]|[bfr]|u)')
_VISIBLE_ESCAPES = {"\\b": "\\\\u0008", "\\f": "\\\\u000c", "\\r": "\\\\r", "\\u": "\\\\u"}
"""Escapes that JSON writes for control characters, and the JSON of their visible forms."""


def render_page(data: Mapping[str, Any]) -> str:
    """The whole page in one text, with a content security policy that lets nothing else run or load.

    Args:
        data: plain data as `mimbench.report.page` gathers it; `title` and `version` go into the markup too. With
            `live`, the page asks the server that it comes from for runs in progress.

    Raises:
        ValueError: a number in the data is not finite.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    source = files(__package__)
    style = (source / "page.css").read_text(encoding="utf-8")
    template = (source / "page.html").read_text(encoding="utf-8")
    script = read_script()
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            title=visible(data["title"]),
            version=data["version"],
            is_live="live" in data,
            made_by=Markup(MADE_BY),
            style=Markup(style),
            script=Markup(script),
            style_hash=_csp_hash(style),
            script_hash=_csp_hash(script),
            data=Markup(pack(data)),
        )
    )


def read_script() -> str:
    """All modules of the script as one text. It needs no bundler, since the modules share one scope."""
    folder = files(__package__) / "script"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)


def pack(data: Any) -> str:
    """Plain data for a script element: JSON, by gzip, as base64, in which no markup can occur.

    Control and bidirectional characters in texts are replaced by visible escapes; line breaks and tabs stay.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    packed = gzip.compress(_visible_json(text).encode("utf-8"), compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode()


def unpack(page: str) -> Any:
    """The data of a page that `render_page` wrote.

    Raises:
        ValueError: the text is no such page.
    """
    match = re.search(r'<script type="application/gzip" id="data">([^<]*)</script>', page)
    if match is None:
        raise ValueError("no page of `mimbench report`")
    return json.loads(gzip.decompress(base64.b64decode(match[1])))


def _visible_json(text: str) -> str:
    """`json.dumps(visible data)` from `json.dumps(data)`: walking the text is much faster than walking the data."""
    # JSON escapes control characters below space; all others are in the text as they are. Matching every escape, those
    # that stay included, keeps the second backslash of an escaped one from being taken for the start of an escape.
    text = _ESCAPE.sub(lambda escape: _VISIBLE_ESCAPES.get(escape[0], escape[0]), text)
    for character in set(text):
        shown = visible(character)
        if shown != character:
            text = text.replace(character, shown.replace("\\", "\\\\"))
    return text


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
