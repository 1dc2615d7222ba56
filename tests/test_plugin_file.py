"""Plugins from a Python file: registered for one process, and refused in one line that names the place."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from mimbench import registry
from mimbench.errors import InputError
from mimbench.plugin_file import add_plugin_file, resolve_method

METHOD = """\
from mimbench_methods.random_init import RandomInit


class Mine(RandomInit):
    \"\"\"Does nothing, and says so.\"\"\"

    name = "mine"
    version = "1"
"""
TASK = "from helpers.toy_plugins import Toy\n\n\nclass Score(Toy):\n    name = 'mine'\n"


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch):
    """Registrations, imports and sys.path end with each test."""
    for kind in registry.ALL:
        monkeypatch.setattr(kind, "_added", {})
        monkeypatch.setattr(kind, "_loaded", dict(kind._loaded))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "my_plugins.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_every_class_is_registered_under_its_name_with_the_file_as_owner(file):
    path = file(METHOD + TASK)
    assert [(plugin.kind, plugin.name) for plugin in add_plugin_file(path)] == [("method", "mine"), ("task", "mine")]
    assert registry.methods.load("mine").__name__ == "Mine"
    assert registry.tasks.load("mine").__name__ == "Score"
    assert registry.methods.owner("mine") == str(path)
    (outlined,) = [plugin for plugin in registry.methods.outline() if plugin.name == "mine"]
    assert (outlined.summary, outlined.problem) == ("Does nothing, and says so.", None)
    assert registry.methods.load("mine").__module__ == "my_plugins"


def test_the_same_file_twice_is_registered_once(file):
    path = file(METHOD)
    assert add_plugin_file(path) == add_plugin_file(path)


def test_an_encoder_is_registered_under_its_kind(file):
    path = file("from mimbench.encoders.vit import ViT\nclass Mine(ViT):\n    kind = 'own-kind'\n")
    assert [(plugin.kind, plugin.name) for plugin in add_plugin_file(path)] == [("encoder", "own-kind")]


def test_a_base_class_without_a_name_is_no_plugin(file):
    text = "from mimbench.api import Method\nclass Base(Method):\n    pass\nclass Mine(Base):\n    name = 'mine'\n"
    assert [plugin.name for plugin in add_plugin_file(file(text))] == ["mine"]


def test_a_module_of_a_package_has_its_name_there_and_imports_its_neighbours(file):
    file("", "project/my_package/__init__.py")
    file("LEVEL = '7'\n", "project/my_package/values.py")
    text = METHOD.replace("class", "from my_package.values import LEVEL\nclass").replace('"1"', "LEVEL")
    (plugin,) = add_plugin_file(file(text, "project/my_package/mine.py"))
    assert plugin.cls.__module__ == "my_package.mine"
    assert plugin.cls.version == "7"


def test_a_class_that_breaks_the_contract_is_listed_as_broken(file):
    path = file("from mimbench.api import Task\nclass Mine(Task):\n    name = 'mine'\n    version = '1'\n")
    add_plugin_file(path)
    with pytest.raises(InputError, match=rf"task 'mine' of {re.escape(str(path))} is broken: .*does not define"):
        registry.tasks.load("mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n\ndef f(:\n    pass\n", r"my_plugins\.py:3: SyntaxError: "),
        ("import torch\n\nimport not_there\n", r"my_plugins\.py:3: ModuleNotFoundError: No module named 'not_there'"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", r"my_plugins\.py:2: ZeroDivisionError: division by zero"),
        ("raise SystemExit('no')\n", r"my_plugins\.py:1: SystemExit: no"),
        ("x = 1\n", "defines no plugin; derive a class from Method, Task, Dataset or Encoder"),
        (METHOD.replace('name = "mine"', "name = None"), r"my_plugins\.py:4: class Mine has no name; add name = "),
        (METHOD + METHOD.replace("Mine", "Two"), "classes Mine and Two are both method 'mine'; rename one"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(file, text, message):
    with pytest.raises(InputError, match=message) as refused:
        add_plugin_file(file(text))
    assert "\n" not in str(refused.value)


def test_a_name_that_is_registered_is_refused_with_both_owners(file):
    path = file(METHOD.replace('"mine"', '"random-init"'))
    both = rf"registered twice, by mimbench \S+ \(\S+\) and {re.escape(str(path))} \(my_plugins:Mine\)"
    with pytest.raises(InputError, match=both):
        add_plugin_file(path)
    add_plugin_file(file(METHOD, "first.py"))
    with pytest.raises(InputError, match=r"first\.py \(first:Mine\) and .*second\.py \(second:Mine\)"):
        add_plugin_file(file(METHOD, "second.py"))


@pytest.mark.parametrize("name", ["random.py", "torch.py", "json/mine.py"])
def test_a_file_that_another_module_shadows_is_refused(file, tmp_path, name):
    path = file(METHOD, name)
    if path.parent != tmp_path:
        file("", f"{path.parent.name}/__init__.py")
    with pytest.raises(InputError, match=r"`import \w+` imports .* instead; rename the file"):
        add_plugin_file(path)


def test_a_path_that_is_no_python_file_is_refused(tmp_path, file):
    for path, message in (
        (tmp_path / "missing.py", "does not exist"),
        (tmp_path, "is a folder; name a Python file in it"),
        (file(METHOD, "mine.txt"), "cannot be imported; rename it, such as to"),
        (file(METHOD, "a.b.py"), "cannot be imported; rename it, such as to"),
    ):
        with pytest.raises(InputError, match=message):
            add_plugin_file(path)


def test_a_method_is_named_by_file_and_class(file):
    path = file(METHOD + TASK)
    assert resolve_method(f"{path}:Mine") == "mine"
    assert resolve_method("simmim") == "simmim"
    with pytest.raises(InputError, match="has no method class 'Score'; its methods: Mine"):
        resolve_method(f"{path}:Score")


SPAWN = """
import multiprocessing, sys
from pathlib import Path
import mimbench.plugin_file as plugin_file

if __name__ == "__main__":
    (plugin,) = plugin_file.add_plugin_file(Path(sys.argv[1]))
    with multiprocessing.get_context(sys.argv[2]).Pool(1) as pool:
        print(pool.apply(plugin.cls.label, ("x",)))
"""


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_worker_process_can_import_its_classes(file, tmp_path, start):
    text = METHOD + "    @staticmethod\n    def label(text):\n        return f'{text}: {__name__}'\n"
    script = file(SPAWN, "script.py")
    path = file(text, "elsewhere/my_plugins.py")
    command = [sys.executable, str(script), str(path), start]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "x: my_plugins", done.stderr
