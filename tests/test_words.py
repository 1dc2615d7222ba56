"""Words that are no names in this code: they say neither what a value is nor what a function does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("mimbench", "methods", "tasks", "tests", "examples", "benchmarks", "docs")
BANNED = {
    "told",
    "tells",
    "alike",
    "beside",
    "wanted",
    "lacking",
    "standing",
    "found",
    "of",
    "sides",
    "apart",
    "kept",
    "own",
    "given",
    "asked",
}


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every function, class, parameter, variable, attribute and alias that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield getattr(node, "lineno", 0), node.asname
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name


def banned_names(path: Path) -> list[str]:
    """`file:line: name` of each banned name; a module may not have such a name either."""
    where = path.relative_to(ROOT)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [(0, path.stem), *names_in(tree)]
    return [f"{where}:{line}: {name}" for line, name in named if name.strip("_").lower() in BANNED]


def test_no_banned_word_is_a_name():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    assert [name for path in files for name in banned_names(path)] == []


TEST_NAMES = {"told", "tells", "alike", "beside", "wanted", "lacking", "lacks", "apart", "anew"}
"""Words that no test's name may contain."""


def test_test_names_are_plain():
    named = [
        (path.relative_to(ROOT), node.lineno, node.name)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(named) > 1000
    assert [f"{file}:{line}: {name}" for file, line, name in named if TEST_NAMES & set(name.split("_"))] == []


def test_the_check_can_fail():
    source = "def told(own): found = [kept for kept in own]\nimport x as beside\nself.given = 1\n"
    assert {name for _, name in names_in(ast.parse(source))} == {"told", "own", "found", "kept", "beside", "given"}
