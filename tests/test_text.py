"""Text that is safe to print: nothing in it is obeyed by a terminal."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import mimbench
from mimbench.text import print_text, visible


def test_control_and_bidirectional_characters_are_shown():
    assert visible("a\x1b[31mb\x9b\x7f\u202ec\ud800") == "a\\u001b[31mb\\u009b\\u007f\\u202ec\\ud800"
    assert visible("1\n2\t3\r") == "1\\n2\\t3\\r"
    assert visible("1\n2\t3\r", keep="\n\t") == "1\n2\t3\\r"
    plain = "ViT-B/16 ± 0.5 − 中文 é 🙂\u00a0x"
    assert visible(plain) == plain


def test_json_stays_json():
    data = {"a\x9b": ["\x1b", "\u202e", "\n"]}
    text = visible(json.dumps(data, ensure_ascii=False, indent=2), keep="\n")
    assert json.loads(text) == data
    assert not set(text) & set("\x1b\x9b\u202e")


@pytest.mark.parametrize("error", [False, True])
def test_lines_are_printed_where_they_belong(capsys, error):
    print_text("a\x1b\nb", end="", error=error)
    assert capsys.readouterr()[error] == "a\\u001b\nb"


def test_nothing_is_printed_by_other_means():
    root = Path(mimbench.__file__).parent
    calls = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [call.partition(":")[0] for call in calls] == ["text.py"]
