"""Terminals that cannot print a sign."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from mimbench.terminal import print_any_text

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
