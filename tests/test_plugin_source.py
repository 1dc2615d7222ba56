"""Descriptions and problems of plugins, read from their source without an import."""

from __future__ import annotations

import sys

import pytest

from mimbench.plugin_source import PluginSource, find_file, read_source

PLAIN = '''"""The module."""
class A:
    """One thing
    in two lines. More.

    And more."""
class B: pass
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write files of a package `sourced` that fails when it is imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**files: str) -> None:
        folder = tmp_path / "sourced"
        folder.mkdir(exist_ok=True)
        for name, text in {"__init__": "raise RuntimeError('imported')\n", **files}.items():
            path = folder / f"{name.replace('__of__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    yield write
    assert not any(name.partition(".")[0] == "sourced" for name in sys.modules)


def test_the_first_sentence_of_a_class_is_its_summary(package):
    package(plain=PLAIN)
    assert read_source("sourced.plain:A") == PluginSource("One thing in two lines.")
    assert read_source("sourced.plain : A [extra]") == PluginSource("One thing in two lines.")
    assert read_source("sourced.plain:B") == PluginSource("The module.")


def test_a_class_is_followed_to_the_file_that_defines_it(package):
    package(
        sub__of____init__="from .inner import A\nfrom sourced.other import B as C\n",
        sub__of__inner='class A:\n    """From inner."""\n',
        other="try:\n    from .sub.inner import A as B\nexcept ImportError:\n    B = None\n",
    )
    assert read_source("sourced.sub:A").summary == "From inner."
    assert read_source("sourced.sub:C").summary == "From inner."


def test_imports_in_a_circle_end(package):
    package(a="from sourced.b import A\n", b="from sourced.a import A\n")
    assert read_source("sourced.a:A") == PluginSource()


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no_such_package:A", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("sourced.absent:A", "ModuleNotFoundError: No module named 'sourced.absent'"),
        ("sourced.absent.deeper:A", "ModuleNotFoundError: No module named 'sourced.absent'"),
        ("sourced.plain:Missing", "plain.py defines no 'Missing'"),
    ],
)
def test_what_is_missing_is_a_problem(package, target, problem):
    package(plain="class A: pass\n")
    assert problem in read_source(target).problem


def test_a_syntax_error_is_a_problem_with_its_line(package):
    package(bad="class A:\n    pass\ndef f(:\n")
    problem = read_source("sourced.bad:A").problem
    assert problem.startswith("SyntaxError: ")
    assert problem.endswith("bad.py:3)")


@pytest.mark.parametrize(
    "text",
    [
        "from os import *\n",
        "def __getattr__(name): return object\n",
        "A = type('A', (), {})\n",
        "if True:\n    A: type = object\n",
        "try:\n    import nothing\nexcept ImportError:\n    A = object\n",
        "import json as A\n",
    ],
)
def test_a_name_that_may_exist_is_no_problem(package, text):
    package(dynamic=text)
    assert read_source("sourced.dynamic:A").problem is None


def test_a_module_without_a_source_file_has_no_description():
    assert find_file("itertools") is None
    assert read_source("itertools:chain") == PluginSource()
