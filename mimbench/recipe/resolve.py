"""A recipe resolved: every table typed, checked against its plugin, and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from mimbench import registry
from mimbench.advice import describe_invalid
from mimbench.contract import (
    Config,
    DataConfig,
    Encoder,
    InputConfig,
    Method,
    PretrainConfig,
    Protocol,
    Task,
    TaskConfig,
)
from mimbench.contract.validation import NONE, has_option, validate
from mimbench.errors import InputError, nearest
from mimbench.plugin_source import location
from mimbench.recipe import AT
from mimbench.recipe import document as recipe_document

SET = "set on the command line"
"""The source of a value that no recipe file gave."""
NAME_IS_A_FLAG = "method.name cannot be set; choose the method with --method"


@dataclass(frozen=True)
class Recipe:
    """All that shapes one pretraining but its seed; tasks' tables are kept for the tasks."""

    name: str
    dataset: str
    data: DataConfig
    input: InputConfig
    encoder: str
    encoder_config: Config
    method: str
    method_config: Config
    pretrain: PretrainConfig
    task_tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dataset_tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of datasets by name, for tasks that run on another one than the pretraining."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """By dotted path; a value that is not in it is the default of its table's Config."""

    def encoder_class(self) -> type[Encoder]:
        return registry.encoders.load(self.encoder)

    def method_class(self) -> type[Method]:
        return registry.methods.load(self.method)

    def views(self) -> tuple[InputConfig, ...]:
        """How the method wants each view of an image: the recipe's [input], unless it asks for others.

        Raises:
            InputError: the method asks for no view, or for something else than views.
        """
        method = self.method_class()
        try:
            views = tuple(method.views(self.method_config, self.input))
        except ValidationError as error:
            raise InputError(
                f"method {self.method!r} of {registry.methods.owner(self.method)}: a view is not possible: "
                f"{describe_invalid(error)} ({location(method.views)})"
            ) from error
        if not views or not all(isinstance(view, InputConfig) for view in views):
            raise InputError(
                f"method {self.method!r} of {registry.methods.owner(self.method)}: views gives {views!r}, not one or "
                f"more InputConfig ({location(method.views)})"
            )
        return views

    def task(self, name: str) -> Task:
        """The task `name` as its protocol and, over that, this recipe configure it."""
        cls: type[Task] = registry.tasks.load(name)
        table = _table(self.task_tables, name, "tasks.")
        protocol = self.protocol(name)
        if protocol:
            table = {"protocol": cls.default_protocol, **recipe_document.merge(protocol.options, table)}
        return cls(validate(cls.Config, table, f"tasks.{name}"))

    def protocol(self, name: str) -> Protocol | None:
        """The protocol that the task `name` starts from; None for a task without protocols.

        Raises:
            InputError: the task has no protocol of that name.
        """
        cls: type[Task] = registry.tasks.load(name)
        protocol = _table(self.task_tables, name, "tasks.").get("protocol", cls.default_protocol)
        if protocol is None:
            return None
        if protocol not in cls.protocols:
            raise InputError(f"task {name!r} has no protocol {protocol!r}{nearest(str(protocol), cls.protocols)}")
        return cls.protocols[protocol]

    def task_data(self, task: Task) -> tuple[str, dict[str, Any]]:
        """The dataset that `task` runs on, and its options: [datasets.NAME] and over that the task's own `data`.

        Of the dataset that is pretrained on, all of [data] counts.
        """
        name = task.config.dataset or task.default_dataset or self.dataset
        is_pretraining_set = name == self.dataset
        under = self.data.model_dump() if is_pretraining_set else _table(self.dataset_tables, name, "datasets.")
        return name, recipe_document.merge(under, task.config.data)

    def as_tables(self) -> dict[str, Any]:
        """The resolved tables as plain JSON data, as records keep them."""
        return {
            "data": {"name": self.dataset, **self.data.model_dump(mode="json")},
            "input": self.input.model_dump(mode="json"),
            "encoder": {"name": self.encoder, **self.encoder_config.model_dump(mode="json")},
            "method": {"name": self.method, **self.method_config.model_dump(mode="json")},
            "pretrain": self.pretrain.model_dump(mode="json"),
        }


def resolve(
    name: str, document: recipe_document.Table, method: str, settings: Mapping[str, Any], task: str | None
) -> Recipe:
    """Lay `settings` ({dotted path: value}) over the document, and type what comes of it for `method`.

    `task` is the one that "task.KEY" settings mean. A "method.KEY" or "task.KEY" setting that the plugin
    does not know is left out here: `check_settings` has made sure that some chosen plugin knows it.

    Raises:
        InputError: an unknown key or plugin (with the nearest), or an impossible value.
    """
    tables = recipe_document.for_method(document, method)
    method_class: type[Method] = registry.methods.load(method)
    places = {path: _placed(path, method, method_class, task) for path in settings}
    for path, value in settings.items():
        placed = places[path]
        if placed:
            tables = recipe_document.put(tables, placed, value)
            replaced = [f"{placed}."]
            other_unit = recipe_document.other_unit(placed)
            if other_unit and other_unit not in places.values() and value != NONE:
                tables = recipe_document.remove(tables, other_unit)
                replaced.append(f"{other_unit}.")
            others = {p: s for p, s in _table(tables, "sources").items() if not f"{p}.".startswith(tuple(replaced))}
            tables["sources"] = others | {p: SET for p, _ in recipe_document.values({placed: value})}
    data = _table(tables, "data")
    encoder = _table(tables, "encoder")
    method_table = _table(tables, "method")
    dataset_name, encoder_name = _named(data, "data"), _named(encoder, "encoder")
    data = recipe_document.merge(_table(_table(tables, "datasets"), dataset_name, "datasets."), data)
    encoder = recipe_document.merge(_table(_table(tables, "encoders"), encoder_name, "encoders."), encoder)
    pretrain = _table(tables, "pretrain")
    if not method_class.pretrains:
        pretrain = {key: value for key, value in pretrain.items() if f"pretrain.{key}" not in AT}
    if method_table.pop("name", method) != method:
        raise InputError(NAME_IS_A_FLAG)
    return Recipe(
        name=name,
        dataset=dataset_name,
        data=validate(registry.datasets.load(dataset_name).Config, data, "data"),
        input=validate(InputConfig, _table(tables, "input"), "input"),
        encoder=encoder_name,
        encoder_config=validate(registry.encoders.load(encoder_name).Config, encoder, "encoder"),
        method=method,
        method_config=validate(method_class.Config, method_table, "method"),
        pretrain=validate(PretrainConfig, pretrain, "pretrain"),
        task_tables=_table(tables, "tasks"),
        dataset_tables=_table(tables, "datasets"),
        sources=_sources(_table(tables, "sources"), {"datasets": dataset_name, "encoders": encoder_name}),
    )


def _sources(sources: dict[str, str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Sources, with those of [datasets.NAME] under "data" and of [encoders.NAME] under "encoder".

    If both tables set a key, the named table's source is used.
    """
    renamed: dict[str, str] = {}
    for group, table in (("datasets", "data"), ("encoders", "encoder")):
        prefix = f"{group}.{chosen[group]}."
        renamed |= {
            f"{table}.{path.removeprefix(prefix)}": sources[path] for path in sources if path.startswith(prefix)
        }
    return renamed | {
        path: source for path, source in sources.items() if not path.startswith(("datasets.", "encoders."))
    }


def applies(path: str, method: str, task: str | None) -> bool:
    """Whether a setting means anything for this method and task (a mask ratio does not for a control)."""
    method_class: type[Method] = registry.methods.load(method)
    if path.startswith("pretrain.") and not method_class.pretrains:
        return False
    return _placed(path, method, method_class, task) is not None


def check_settings(paths: list[str], methods: list[str], tasks: list[str]) -> None:
    """Raise InputError for a "method." or "task." setting that no chosen plugin knows."""
    for path in paths:
        if path == "method.name":
            raise InputError(NAME_IS_A_FLAG)
        head, _, rest = path.partition(".")
        _check_owner(head, rest, path)
        chosen: list[type[Method]] | list[type[Task]]
        if head == "method":
            chosen = [registry.methods.load(name) for name in methods]
        elif head == "task":
            chosen = [registry.tasks.load(name) for name in tasks]
        else:
            continue
        if chosen and not any(has_option(plugin.Config, rest) for plugin in chosen):
            keys = {key for plugin in chosen for key in plugin.Config.model_fields}
            names = ", ".join(plugin.name for plugin in chosen)
            hint = nearest(rest.split(".")[0], keys) if keys else "; it has no options"
            raise InputError(f"unknown key {path!r} for {head} {names}{hint}")


def _check_owner(head: str, rest: str, path: str) -> None:
    """Raise InputError where "methods.NAME.x" and its like name no plugin, or no table of a recipe."""
    kinds = {
        "methods": registry.methods,
        "tasks": registry.tasks,
        "datasets": registry.datasets,
        "encoders": registry.encoders,
    }
    if head not in kinds:
        return
    owner, _, inner = rest.partition(".")
    if owner not in kinds[head].names():
        raise InputError(f"{path}: unknown {kinds[head].kind} {owner!r}{nearest(owner, kinds[head].names())}")
    if not inner:
        raise InputError(f"{path!r} names a table; name a key in it: {path}.KEY=VALUE")
    if head == "methods" and inner.partition(".")[0] not in recipe_document.SECTIONS:
        raise InputError(f"unknown key {path!r}{nearest(inner.partition('.')[0], recipe_document.SECTIONS)}")


def _placed(path: str, method: str, method_class: type[Method], task: str | None) -> str | None:
    head, _, rest = path.partition(".")
    if head == "method":
        return path if has_option(method_class.Config, rest) else None
    if head == "methods":
        owner, _, inner = rest.partition(".")
        return inner if owner == method else None
    if head == "task":
        config: type[TaskConfig] | None = registry.tasks.load(task).Config if task else None
        return f"tasks.{task}.{rest}" if config and has_option(config, rest) else None
    return path


def _table(tables: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
    table = tables.get(key, {})
    if not isinstance(table, Mapping):
        raise InputError(f"{where}{key} is a table of a recipe, not {table!r}")
    return dict(table)


def _named(table: dict[str, Any], where: str) -> str:
    if "name" not in table:
        raise InputError(f"{where}.name is missing: give it in the recipe or with --set {where}.name=NAME")
    return str(table.pop("name"))
