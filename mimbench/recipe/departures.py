"""Options in which a task departs from its named protocol, and the shaping options of recipes and presets."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from mimbench import registry
from mimbench.contract import InputConfig, PretrainConfig, Task
from mimbench.contract.validation import validate
from mimbench.errors import InputError
from mimbench.recipe import document as recipe_document
from mimbench.recipe.resolve import resolve

_SAME_STEPS = ("accumulate", "at_epoch", "at_step")
"""Options of [pretrain] that leave each optimizer step as it is: `batch_size` counts accumulated images."""


def departures(task: Task) -> dict[str, Any]:
    """Options that differ from the task's named protocol as shipped, by dotted path; {} for a task without one.

    It does not matter who set them: a preset, a recipe file, --set or --vary. What cannot change the score is left out:
    cosmetic options, and those that `Task.protocol` leaves out. If the protocol
    cannot run without further options, every option that it does not set is a departure.
    """
    cls, name = type(task), task.config.protocol
    protocol = cls.protocols.get(name or "")
    if protocol is None:
        return {}
    options = {"protocol": name, **protocol.options}
    try:
        as_shipped = cls(validate(cls.Config, options, f"tasks.{cls.name}"))
    except InputError:
        shipped: dict[str, Any] = {**options, "task": cls.name, "version": cls.version}
    else:
        # An option that has no effect in the shipped protocol becomes a departure when another option puts it to use.
        shipped = {**as_shipped.config.shaping(), **as_shipped.protocol()}
    known, actual = dict(recipe_document.values(shipped)), dict(recipe_document.values(task.protocol()))
    departed = {path: value for path, value in actual.items() if path not in known or known[path] != value}
    # A protocol may set an option that is newer than the record. The record leaves the option out, at its default.
    departed |= {path: value for path, value in task.config.left_out().items() if path in known.keys() - actual}
    # A length in one unit replaces that in the other, which says nothing more.
    return {p: v for p, v in departed.items() if v is not None or recipe_document.other_unit(p) not in departed}


def task_departures(task: str, table: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """`departures` of a task's table from a record, with the options of `dataset` that it sets and that shape results.

    Raises:
        InputError: a plugin is not installed, or does not know an option.
    """
    cls: type[Task] = registry.tasks.load(task)
    protocol = cls.protocols.get(str(table.get("protocol")))
    options = recipe_document.merge(protocol.options if protocol else {}, table)
    data_config = registry.datasets.load(dataset).Config
    data = {f"data.{key}": value for key, value in table.get("data", {}).items() if not data_config.is_cosmetic(key)}
    return departures(cls(validate(cls.Config, options, f"tasks.{task}"))) | data


def shaping_values(tables: Mapping[str, Any]) -> dict[str, Any]:
    """{dotted path: value} of a resolved recipe, as records keep it, without what shapes no result.

    Options that are newer than the record have their defaults, which is what it was made with.

    Raises:
        InputError: a plugin is not installed, or does not know an option; a table is missing.
    """
    typed: dict[str, Any] = {}
    plugins: registry.Registry
    for table, plugins in (
        ("data", registry.datasets),
        ("encoder", registry.encoders),
        ("method", registry.methods),
    ):
        options = dict(tables.get(table, {}))
        name = str(options.pop("name", ""))
        typed[table] = {"name": name, **validate(plugins.load(name).Config, options, table).shaping()}
    typed["input"] = validate(InputConfig, tables.get("input", {}), "input").shaping()
    pretrain = validate(PretrainConfig, tables.get("pretrain", {}), "pretrain").shaping()
    typed["pretrain"] = {key: value for key, value in pretrain.items() if key not in _SAME_STEPS}
    return dict(recipe_document.values(typed))


@functools.cache
def preset_values(method: str) -> tuple[Mapping[str, Any], ...]:
    """`shaping_values` of each preset, resolved for `method`; presets that it cannot use are left out.

    If some presets have a table of the method, only these are its presets: others are recipes of other methods.

    Raises:
        InputError: the method is not installed.
    """
    registry.methods.load(method)
    documents = {name: recipe_document.read(name) for name in recipe_document.preset_names()}
    named = {name: document for name, document in documents.items() if method in document.get("methods", {})}
    presets = []
    for name, document in (named or documents).items():
        try:
            recipe = resolve(name, document, method, {}, None)
        except InputError:
            continue
        presets.append(shaping_values(recipe.as_tables()))
    return tuple(presets)
