"""Plugins by name: lazy, with near misses, with duplicates and broken ones contained."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from mimbench import registry
from mimbench.errors import InputError
from mimbench.registry import Registry


class _Dist:
    def __init__(self, name: str) -> None:
        self.metadata = {"Name": name, "Version": "1.0"}


def point(name: str, value: str, owner: str, group: str = "mimbench.tasks") -> EntryPoint:
    entry = EntryPoint(name, value, group)
    vars(entry).update(dist=_Dist(owner))
    return entry


@pytest.fixture
def with_points(monkeypatch):
    def install(*points: EntryPoint) -> Registry:
        monkeypatch.setattr("mimbench.registry.entry_points", lambda group: points)
        return Registry("task")

    return install


def test_built_ins_are_bound_by_entry_points():
    assert {"simmim", "random-init"} <= set(registry.methods.names())
    assert {"linear-probe", "detection"} <= set(registry.tasks.names())
    assert {"mnist5k", "digits", "folder", "digit-scenes", "imagenet"} <= set(registry.datasets.names())
    assert "vit" in registry.encoders.names()
    assert registry.methods.load("simmim").name == "simmim"


def test_every_plugin_that_ships_loads_under_its_own_name():
    for kind in registry.ALL:
        for plugin in kind.survey():
            assert plugin.problem is None, plugin
            assert plugin.summary, plugin
    for kind in (registry.methods, registry.tasks):
        assert [kind.load(name).name for name in kind.names()] == kind.names()


def test_listing_names_imports_no_plugin():
    code = (
        "import sys; from mimbench import registry\n"
        "for kind in registry.ALL: kind.names(), kind.overview()\n"
        "heavy = ('torch', 'timm', 'mmengine', 'mimbench_', 'mimbench.contract')\n"
        "print([module for module in sys.modules if module.startswith(heavy)])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_an_unknown_name_gives_the_nearest(with_points):
    plugins = with_points(point("simmim", "a:B", "p"), point("mae", "a:C", "p"))
    with pytest.raises(InputError, match=r"unknown task 'simim'; did you mean 'simmim'\?"):
        plugins.load("simim")
    with pytest.raises(InputError, match=r"unknown task 'zzz'; known: mae, simmim"):
        plugins.load("zzz")


def test_a_duplicate_names_both_owners_and_stops_nothing_else(with_points):
    plugins = with_points(
        point("mine", "json:loads", "alpha"),
        point("mine", "json:dumps", "beta"),
        point("toy", "helpers.toy_plugins:Toy", "gamma"),
    )
    with pytest.raises(InputError, match=r"'mine' is registered twice, by alpha 1.0 \(json:loads\) and beta 1.0"):
        plugins.load("mine")
    assert plugins.load("toy").__name__ == "Toy"
    assert [bool(plugin.problem) for plugin in plugins.survey()] == [True, False]
    assert [bool(plugin.problem) for plugin in plugins.overview()] == [True, False]


def test_the_same_point_seen_twice_is_no_duplicate(with_points):
    assert with_points(*[point("toy", "helpers.toy_plugins:Toy", "alpha")] * 2).load("toy")


def test_a_broken_plugin_is_shown_with_its_reason(with_points):
    plugins = with_points(
        point("bad", "no_such_module_here:X", "alpha"), point("toy", "helpers.toy_plugins:Toy", "beta")
    )
    bad, good = plugins.survey()
    assert "ModuleNotFoundError: No module named 'no_such_module_here'" in bad.problem
    assert "alpha 1.0" in bad.problem
    assert good.problem is None
    with pytest.raises(InputError, match="is broken"):
        plugins.load("bad")


def test_a_plugin_that_breaks_the_contract_is_named_with_its_package_and_line(with_points):
    plugins = with_points(point("mine", "helpers.toy_plugins:Toy", "alpha"), point("function", "json:loads", "beta"))
    function, mine = plugins.survey()
    assert re.search(r"task 'mine' of alpha 1\.0 is broken: .*'toy'.*'mine'.*toy_plugins\.py:\d+\)$", mine.problem)
    assert "task 'function' of beta 1.0 is broken: it is a function, not a class" in function.problem
    with pytest.raises(InputError, match="use the same name for both"):
        plugins.load("mine")


def test_what_a_package_raises_on_import_is_one_short_line(with_points, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_tensors.py").write_text(
        "import torch\nfrom mimbench.contract import Config\nclass C(Config):\n    scale: torch.Tensor\n"
    )
    (tmp_path / "that_exits.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "of_lines.py").write_text("raise ValueError('one\\ntwo')\n")
    points = [point(name, f"{name}:X", "alpha") for name in ("of_lines", "of_tensors", "that_exits")]
    lines, tensors, exits = (plugin.problem for plugin in with_points(*points).survey())
    assert "an option of type torch.Tensor, which no recipe can give" in tensors
    assert "arbitrary_types_allowed" not in tensors
    assert "ValueError: one (" in lines
    assert "SystemExit: 3" in exits


def test_the_metadata_of_a_package_is_read_once(with_points):
    reads = []

    class Counted(_Dist):
        metadata = property(lambda self: reads.append(self) or {"Name": "alpha", "Version": "1.0"})

        def __init__(self) -> None:
            return

    points = (point("one", "alpha:One", "alpha"), point("two", "alpha:Two", "alpha"))
    shared = Counted()
    for entry in points:
        vars(entry).update(dist=shared)
    tasks = with_points(*points)
    assert [tasks.owner(name) for name in ("one", "two", "one")] == ["alpha 1.0"] * 3
    assert len(reads) == 1
