"""Text that is safe to print: a terminal obeys nothing in it, and can print every sign."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

import mimbench
from mimbench.text import print_any_text, print_text, visible


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


SIGNS = "52.3 ± 0.4, Δ 1 – 2 → 3 ─│┌ 数 \udcff"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_sign_is_printed_or_replaced(encoding, monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # as in a notebook: nothing to be reconfigured
    print_any_text()
    print(SIGNS)
    with Progress(console=Console(file=sys.stdout, force_terminal=True)) as bar:
        bar.update(bar.add_task("±", total=2), completed=1)
    stream.flush()
    said = raw.getvalue().decode(encoding)
    assert said.startswith({"ascii": "52.3 +- 0.4, d 1 - 2 -> 3 -|+ ? ?"}.get(encoding, "52.3 ± 0.4, "))


def test_the_command_prints_a_table_and_help_in_ascii(mimbench, tmp_path):
    for arguments in (("--help",), ("run", "--help"), ("show", "recipe", "smoke"), ("list", "--names")):
        done = mimbench(*arguments, PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
