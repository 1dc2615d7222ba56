"""docs/tutorial.md: its code is a plugin of tests/plugins, and its commands run and print what the page shows."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("make_tutorial", ROOT / "docs" / "make_tutorial.py")
tutorial = importlib.util.module_from_spec(_spec)
sys.modules["make_tutorial"] = tutorial  # dataclasses look their module up
_spec.loader.exec_module(tutorial)
TEXT = tutorial.PAGE.read_text(encoding="utf-8")
STEPS = tutorial.read_steps(TEXT)


def code_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def shape(text: str) -> list[str]:
    """Lines of an output without what another machine may change: numbers, hashes, and marks of the best."""
    lines = []
    for line in text.splitlines():
        if "not shown to be the best" in line:
            continue
        line = re.sub(r"\[[a-z]\]", "", line)
        line = re.sub(r"(?<![\w-])[*_](.*?)[*_](?=\s|$)", r"\1", line)
        line = re.sub(r"\b[0-9a-f]{12,}\b", "HASH", line)
        line = re.sub(r"[+−]?\d[\d.,]*", "N", line)
        lines.append(re.sub(r"[\s-]+", " ", line).strip())
    return [line for line in lines if line]


def test_its_code_is_the_plugin():
    """The Python blocks, one after the other, are the file. Blank lines do not count."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) > 4
    assert code_lines("".join(blocks)) == code_lines(tutorial.PLUGIN.read_text(encoding="utf-8"))


def test_it_is_read_in_a_quarter_of_an_hour():
    """At 200 words of prose and 30 lines of blocks per minute."""
    prose, *blocks = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), *re.findall(r"```.*?```", TEXT, re.DOTALL)
    lines = sum(len(block.splitlines()) - 2 for block in blocks)
    assert len(prose.split()) / 200 + lines / 30 < 15


def test_it_has_an_output_for_the_main_commands():
    compared = [step.commands for step in STEPS if step.output is not None and not step.takes_minutes]
    for word in ("mimbench run", "mimbench check method", "mimbench table", "mimbench show record", "--vary"):
        assert any(word in commands for commands in compared), word
    for word in ("mimbench plot", "mimbench new method"):
        assert any(word in step.commands for step in STEPS), word


@pytest.mark.e2e
def test_its_commands_run_and_print_what_it_shows(tmp_path):
    tools, work = tmp_path / "tools", tmp_path / "work"
    tools.mkdir()
    work.mkdir()
    (work / "coarse.py").write_text(tutorial.PLUGIN.read_text(encoding="utf-8"), encoding="utf-8")
    environment = tutorial.make_environment(tools)
    for step in STEPS:
        printed = shape(tutorial.run_step(step, work, environment))
        if step.output is None or step.takes_minutes:
            continue
        if step.is_excerpt:
            rest = iter(printed)
            shown = shape("\n".join(line for line in step.output.splitlines() if line != tutorial.GAP))
            assert [line for line in shown if line not in rest] == [], step.commands
        else:
            assert shape(step.output) == printed, step.commands


def test_shapes_differ_in_words_and_not_in_numbers():
    assert shape("coarse  *27.0 ± 2.6 (n=3)* [b]") == shape("coarse  _9.0 ± 12.6 (n=3)_") == ["coarse N ± N (n=N)"]
    assert shape("Δ −0.7 [−4.5, 3.1]") == shape("Δ +0.7 [4.5, 33.1]")
    assert shape("masks_differ   passed") != shape("masks_differ   failed")
    assert shape("method: coarse") != shape("method: simmim")


def test_minutes_are_planned_only():
    step, quick = tutorial.read_steps(
        "```bash\nmimbench run --method mae\n```\n\n```bash\nmimbench run --recipe smoke\n```\n\n```text\na\n...\n```\n"
    )
    assert step.takes_minutes
    assert step.output is None
    assert quick.is_excerpt
    assert not quick.takes_minutes
