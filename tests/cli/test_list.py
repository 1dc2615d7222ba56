"""`mimbench list`."""

from __future__ import annotations

from mimbench import registry
from mimbench.registry import Plugin


def rows_of(text: str) -> dict[str, str]:
    """Each line by its name. Of a task and a monitor of one name, the task's."""
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    return {line.split()[0]: line for line in reversed(lines)}


def test_list_prints_each_plugin_with_owner_and_description(quick):
    rows = rows_of(quick("list").stdout)
    assert {"simmim", "detection", "mnist5k", "vit", "smoke"} <= rows.keys()
    assert "SimMIM: a Simple Framework for Masked Image Modeling" in rows["simmim"]
    for kind in registry.ALL:
        for plugin in kind.outline():
            assert plugin.problem is None, plugin
            assert plugin.summary, plugin
            assert plugin.owner in rows[plugin.name]
            assert plugin.summary in rows[plugin.name]
    for monitor in registry.monitors.outline():
        assert monitor.problem is None
        assert monitor.summary
    assert "LiDAR over 10 augmented views per image" in rows["lidar"]


def test_names_leaves_out_descriptions(quick):
    listed = quick("list", "--names").stdout
    assert listed.splitlines()[0] == "methods"
    assert "Simple Framework" not in listed


def test_check_prints_what_an_import_finds(quick, monkeypatch):
    problem = "method 'mine' of alpha 1.0 is broken: it has no version"
    survey = [Plugin("mine", "alpha 1.0", "alpha:Mine", problem)]
    monkeypatch.setattr(registry.methods, "survey", lambda: survey)
    assert f"BROKEN: {problem}" in rows_of(quick("list", "--check").stdout)["mine"]
