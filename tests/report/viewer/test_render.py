"""The viewer turns plain data into one HTML file."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest

from mimbench.report.viewer.render import SCRIPTS, pack, read_script, render_page, unpack
from mimbench.text import visible

HOSTILE = "</script><script>alert(1)</script><!-- \u2028"


def make_visible(data: Any) -> Any:
    """The plain way: walk all data."""
    if isinstance(data, str):
        return visible(data, keep="\n\t")
    if isinstance(data, dict):
        return {make_visible(key): make_visible(value) for key, value in data.items()}
    return [make_visible(value) for value in data] if isinstance(data, list) else data


def test_data_in_the_page_cannot_end_its_element():
    page = render_page({"title": HOSTILE, "version": "1", "text": HOSTILE})
    assert page.count("</script>") == 2
    assert unpack(page) == {"title": visible(HOSTILE), "version": "1", "text": visible(HOSTILE)}
    with pytest.raises(ValueError, match="no page of"):
        unpack("<html></html>")


def test_every_character_is_shown_as_if_each_text_were_cleaned_by_itself():
    characters = [chr(code) for code in range(0x2100)] + ["\ud800", "\udfff", "\ufeff", "😀"]
    texts = ["".join(characters)]
    texts += [
        f"{before}{character}{after}" for character in characters for before, after in (("\\", "n"), ('\\\\"', "u"))
    ]
    data = {"texts": texts, **{text: [1.5, None, True, {"x": text}] for text in texts}}
    assert unpack(render_page({"title": "", "version": "", "data": data}))["data"] == make_visible(data)


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack([float("nan")])


def test_the_script_holds_every_module_once():
    folder = files("mimbench.report.viewer") / "script"
    assert sorted(SCRIPTS) == sorted(path.name for path in folder.iterdir())
    assert all((folder / name).read_text(encoding="utf-8") in read_script() for name in SCRIPTS)
