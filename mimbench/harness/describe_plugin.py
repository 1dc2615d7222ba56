"""A plugin in words: what it is, who owns it, its options, and the metrics and protocols of a task."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mimbench import registry
from mimbench.contract import Config, Dataset, Encoder, Method, Task
from mimbench.plugin_source import location

_WIDTH = 100
_TABLES = {
    "method": ("method", "[method]"),
    "encoder": ("encoder", "[encoder]"),
    "dataset": ("data", "[data]"),
    "task": ("task", "[tasks.NAME]"),
}
"""Kind of plugin -> where its options are set: on the command line, and in a recipe."""


def describe_plugin(kind: registry.Registry, name: str) -> str:
    """What `mimbench show KIND NAME` prints.

    Raises:
        InputError: the name is unknown, or the plugin is broken.
    """
    plugin = kind.load(name)
    lines = [f"{kind.kind} {name}, from {kind.owner(name)}"]
    lines += _wrapped(inspect.getdoc(plugin) or "", "")
    lines += ["", f"source: {location(plugin)}"]
    version = getattr(plugin, "version", None)
    if isinstance(version, str):
        lines.append(f"version: {version}")
    if issubclass(plugin, Method):
        lines += _method_facts(plugin)
    elif issubclass(plugin, Task):
        lines += _task_facts(plugin)
    elif issubclass(plugin, Dataset):
        lines.append(f"provides: {_listed(plugin.provides)}")
    elif issubclass(plugin, Encoder):
        lines += [f"kind: {plugin.kind}", f"can: {_describe_abilities(plugin)}"]
    setting, table = _TABLES[kind.kind]
    lines += ["", f"options (--set {setting}.KEY=VALUE, or {table.replace('NAME', name)} of a recipe):"]
    lines += list(_options(plugin.Config)) or ["  none"]
    return "\n".join(lines) + "\n"


def _describe_abilities(encoder: type[Encoder]) -> str:
    return "depends on its options" if isinstance(encoder.can, property) else _listed(encoder.can)


def _method_facts(method: type[Method]) -> Iterator[str]:
    if method.paper:
        yield f"paper: {method.paper}"
    if method.reference:
        yield f"reference code: {method.reference}"
    yield f"needs of the encoder: {_listed(method.encoder_needs)}"
    if method.supervision:
        yield f"also learns from: {_listed(method.supervision)}"
    if method.needs_checkpoint:
        yield "its weights come from elsewhere: it runs with --checkpoint only"
    elif not method.pretrains:
        yield "a control: its encoder stays as initialised"


def _task_facts(task: type[Task]) -> Iterator[str]:
    yield f"needs of the dataset: {_listed(task.needs)}"
    yield f"needs of the encoder: {_listed(task.encoder_needs)}"
    yield f"default dataset: {task.default_dataset or 'that of the pretraining'}"
    yield f"trains the encoder: {'yes' if task.trains_encoder else 'no'}"
    yield ""
    yield "metrics (the first one is the primary metric):"
    width = max(len(metric.name) for metric in task.metrics)
    for metric in task.metrics:
        better = "higher" if metric.higher_is_better else "lower"
        yield f"  {metric.name:<{width}}  {metric.unit}, {metric.low:g} to {metric.high:g}, {better} is better"
    if task.protocols:
        yield ""
        yield "protocols (--set task.protocol=NAME):"
        width = max(map(len, task.protocols))
        for name, protocol in task.protocols.items():
            note = " (default)" if name == task.default_protocol else ""
            yield f"  {name:<{width}}  {protocol.summary}{note}"


def _options(config: type[Config], prefix: str = "") -> Iterator[str]:
    """One line per option, with its description below; options of a nested Config by their dotted path."""
    descriptions = _descriptions(config)
    for name, field in config.model_fields.items():
        nested = field.annotation
        if inspect.isclass(nested) and issubclass(nested, Config):
            yield from _options(nested, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
        yield f"  {prefix}{name}: {_type_name(field.annotation)} = {default}"
        yield from _wrapped(descriptions.get(name, ""), "      ")


def _descriptions(config: type[Config]) -> dict[str, str]:
    """Option -> the string below it in the source of the class, or of the base class that declares it."""
    descriptions: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if not issubclass(cls, Config):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue  # a class made in a notebook or by a function has no source
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for statement, below in itertools.pairwise(body):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                descriptions[statement.target.id] = str(below.value.value)
    return descriptions


def _type_name(annotation: Any) -> str:
    """A type as people write it: `float | None`, `relative | sincos` for the choices of a Literal."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is types.NoneType:
        return "none"
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (list, tuple):
        inner = [_type_name(argument) for argument in arguments if argument is not Ellipsis]
        return f"list of {' | '.join(dict.fromkeys(inner))}"
    return getattr(annotation, "__name__", None) or str(annotation)


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str | Path):
        return str(value)
    return json.dumps(value, default=str)


def _listed(names: typing.Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _wrapped(text: str, indent: str) -> Iterator[str]:
    """Paragraphs as lines of limited width."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n") if text else ()):
        if number:
            yield ""
        yield from textwrap.wrap(" ".join(paragraph.split()), _WIDTH, initial_indent=indent, subsequent_indent=indent)
