"""CONTRIBUTING and the project's other pages name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_target_and_path_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z ]+?)(?:`|\s{2,})", TEXT)) - targets == {"lint test"}
    paths = re.findall(r"`((?:mimbench|methods|tasks|tests|results|docs)/[\w/.]+)`", TEXT)
    assert len(paths) > 8
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_hooks_are_those_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = re.findall(r"\$\(BIN\)/(ruff \w+|mypy)", (ROOT / "Makefile").read_text())
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in hooks] == lint


def test_the_citation_is_of_this_version():
    from mimbench import __version__

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
