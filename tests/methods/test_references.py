"""What methods say of the code that they follow, and what tests/golden says of its files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mimbench import registry

ROOT = Path(__file__).parents[2]
LICENCE = re.compile(r"\bMIT\b|Apache 2\.0|CC-BY-NC 4\.0|Noncommercial|[Nn]o licence")


@pytest.mark.parametrize("name", registry.methods.names())
def test_a_method_with_a_reference_names_its_licence(name):
    method = registry.methods.load(name)
    if not vars(method).get("reference"):
        return
    texts = f"{method.__doc__} {sys.modules[method.__module__].__doc__}"
    assert LICENCE.search(texts), f"{method.__module__}: its docstring names no licence of {method.reference}"


def test_the_readme_of_the_golden_files_names_each_file_once():
    folder = ROOT / "tests/golden"
    text = (folder / "README.md").read_text()
    rows = [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in text.splitlines() if row.startswith("| `")]
    named = [pattern for row in rows for pattern in row]
    assert len(named) == len(set(named))
    files = {path.name for path in folder.iterdir()} - {"README.md"}
    matched = {pattern: {path.name for path in folder.glob(pattern)} for pattern in named}
    assert [pattern for pattern, names in matched.items() if not names] == []
    assert set().union(*matched.values()) == files


def test_the_table_of_costs_has_each_method_that_is_trained():
    text = (ROOT / "docs/methods/index.md").read_text()
    tables = re.findall(r"<!-- generated: cost .*? -->(.*?)<!-- end -->", text, re.DOTALL)
    rows = re.findall(r"^\| ([a-z0-9-]+) \|", "".join(tables), re.MULTILINE)
    trained = {name for name in registry.methods.names() if registry.methods.load(name).pretrains}
    assert set(rows) - {"method", "---"} == trained
