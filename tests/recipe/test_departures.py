"""What departs from a named protocol is noted, whoever set it: a recipe file, a preset, --set or --vary."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from mimbench import registry
from mimbench.contract import Config, Measured, Protocol, Task, TaskConfig, TaskResult
from mimbench.contract.config import added, cosmetic
from mimbench.recipe import document as recipe_document
from mimbench.recipe.departures import departures
from mimbench.recipe.resolve import resolve
from mimbench.store.record import read_records


class Training(Config):
    epochs: int
    rate: float = 0.5
    clip: float | None = 1.0
    style: str = added("old")
    workers: int = cosmetic(4)


class NamedConfig(TaskConfig):
    kind: str = "fitted"
    layer: int = -1
    betas: tuple[float, float] = (0.9, 0.999)
    cascade: int = added(1)
    train: Training = Training(epochs=7)


class Named(Task):
    """`train` is of use for the trained kind alone."""

    name: ClassVar[str] = "named"
    version: ClassVar[str] = "1"
    Config = NamedConfig
    config: NamedConfig
    protocols: ClassVar[dict] = {
        "plain": Protocol("", {"layer": 3}, {}),
        "long": Protocol("", {"kind": "trained", "train": {"epochs": 90, "clip": "none"}}, {}),
        "new": Protocol("", {"kind": "trained", "cascade": 3, "train": {"epochs": 9, "style": "new"}}, {}),
    }
    default_protocol: ClassVar[str | None] = "plain"

    def protocol(self) -> dict[str, Any]:
        return {k: v for k, v in super().protocol().items() if k != "train" or self.config.kind == "trained"}

    def run(self, encoder, dataset, context):
        return TaskResult({"score": Measured(1.0, 1)})

    def chance(self, dataset):
        return 10.0


class Bare(Named):
    """Without protocols."""

    name: ClassVar[str] = "bare"
    protocols: ClassVar[dict] = {}
    default_protocol: ClassVar[str | None] = None


class NeedyConfig(TaskConfig):
    classes: int
    layer: int = -1


class Needy(Named):
    """Its protocol cannot run alone: `classes` is for the recipe to say."""

    name: ClassVar[str] = "needy"
    Config = NeedyConfig
    protocols: ClassVar[dict] = {"plain": Protocol("", {"layer": 3}, {})}
    protocol = Task.protocol


@pytest.fixture(autouse=True)
def _tasks(monkeypatch):
    for task in (Named, Bare, Needy):
        monkeypatch.setitem(registry.tasks.replacements, task.name, task)


def departed(table: dict, settings: dict | None = None, task: str = "named", preset: str = "smoke") -> dict[str, Any]:
    document = recipe_document.merge(recipe_document.read(preset), {"tasks": {task: table}})
    return departures(resolve("x", document, "simmim", settings or {}, task).task(task))


@pytest.mark.parametrize(
    ("table", "settings", "expected"),
    [
        ({}, {}, {}),
        ({"layer": 3, "betas": [0.9, 0.999]}, {"task.layer": 3}, {}),
        ({"layer": 2}, {}, {"layer": 2}),
        ({}, {"task.layer": 2}, {"layer": 2}),
        ({}, {"tasks.named.betas": [0.9, 0.95]}, {"betas": [0.9, 0.95]}),
        ({"layer": 2}, {"task.layer": 3}, {}),
        ({"train": {"epochs": 9}}, {}, {}),  # no use
        ({"kind": "trained", "train": {"epochs": 9}}, {}, {"kind": "trained", "train.epochs": 9}),
        ({"protocol": "long", "train": {"workers": 0}}, {"task.data.root": "/x", "task.dataset": "mnist5k"}, {}),
        ({"protocol": "long"}, {"task.train.clip": 2.0}, {"train.clip": 2.0}),
        ({"protocol": "long", "train": {"epochs": 90}}, {"task.train.rate": 1}, {"train.rate": 1.0}),
        ({}, {"task.protocol": "long", "task.kind": "fitted"}, {"kind": "fitted"}),
        ({"protocol": "new"}, {}, {}),
        ({"protocol": "new"}, {"task.cascade": 1, "task.train.style": "old"}, {"cascade": 1, "train.style": "old"}),
        ({"protocol": "new"}, {"task.cascade": 2}, {"cascade": 2}),
        ({"protocol": "long"}, {"task.cascade": 1, "task.train.style": "old"}, {}),
        ({"protocol": "long"}, {"task.train.style": "new"}, {"train.style": "new"}),
    ],
)
def test_what_differs_from_the_protocol_as_shipped_is_a_departure(table, settings, expected):
    assert departed(table, settings) == expected


def test_an_added_option_at_its_default_stays_out_of_what_shapes_a_result():
    old = Named(NamedConfig(kind="trained"))
    assert "cascade" not in old.protocol()
    assert "style" not in old.protocol()["train"]
    assert old.config.left_out() == {"cascade": 1, "train.style": "old"}
    new = NamedConfig(cascade=2, train=Training(epochs=7, style="new"))
    assert (new.shaping()["cascade"], new.shaping()["train"]["style"], new.left_out()) == (2, "new", {})


def test_a_task_without_protocols_departs_from_none():
    assert departed({"layer": 2}, task="bare") == {}


def test_a_protocol_that_cannot_run_alone_lists_everything_it_leaves_open():
    assert departed({"classes": 10}, {"task.protocol": "plain"}, task="needy") == {"classes": 10}
    both = departed({"classes": 10}, {"task.protocol": "plain", "task.layer": 1}, task="needy")
    assert both == {"classes": 10, "layer": 1}


def test_presets_depart_too_where_it_counts():
    assert departed({}, task="detection") == {"train.epochs": 1}
    assert departed({}, task="linear-probe", preset="mnist5k-vit-tiny") == {}
    trained = departed({"protocol": "mae"}, task="linear-probe", preset="mnist5k-vit-tiny")
    assert (trained["train.epochs"], trained["augmentation.flip"]) == (20, 0.0)
    assert "train.workers" not in trained


def test_every_shipped_protocol_can_run_by_itself():
    shipped = [cls for cls in map(registry.tasks.load, registry.tasks.names()) if cls.protocols]
    assert len(shipped) >= 4
    for cls in shipped:
        for name, protocol in cls.protocols.items():
            recipe = resolve(
                "x", recipe_document.read("imagenet-vit-base"), "random-init", {"task.protocol": name}, cls.name
            )
            task = recipe.task(cls.name)
            assert departures(task) == {}, (cls.name, name)
            assert task.config.protocol == name
            assert protocol.summary


def test_record_and_table_show_that_a_recipe_file_changes_a_protocol(quick, tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "smoke"\n[tasks.linear-probe]\nheld_out = 0.3\n')
    arguments = ("--method", "random-init", "--task", "linear-probe", "--recipe", "mine.toml")
    done = quick("run", *arguments, "--vary", "task.layer=0,-1", "--set", "task.max_iterations=20")
    assert done.returncode == 0, done.stderr
    expected = {"held_out": 0.3, "max_iterations": 20}
    noted = [record.departures for record in read_records(tmp_path / "runs")]
    assert sorted(noted, key=len) == [expected, expected | {"layer": 0}]
    shown = quick("table", "--format", "csv").stdout
    assert "linear-probe: top1 (cached-lbfgs, layer=0, held_out=0.3, max_iterations=20)" in shown
    assert "linear-probe: top1 (cached-lbfgs, held_out=0.3, max_iterations=20)" in shown
