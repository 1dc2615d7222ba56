"""A recipe as a person reads it: every resolved value with its source, and the arithmetic of rates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mimbench import registry
from mimbench.recipe import document as doc
from mimbench.recipe.resolve import Recipe, check_settings, resolve


def describe(name: str, method: str, settings: Mapping[str, Any]) -> str:
    """The resolved recipe as TOML with comments; loading it again gives the same recipe."""
    document = doc.read(name)
    check_settings(list(settings), [method], registry.tasks.names())
    recipe = resolve(name, document, method, settings, None)
    lines = [f"# recipe {name}, resolved for {method}"]
    if document.get("summary"):
        lines.append(f"summary = {json.dumps(document['summary'], ensure_ascii=False)}")
    for table, values in recipe.as_tables().items():
        lines += ["", f"[{table}]", *_table(table, values, recipe.sources)]
        if table == "pretrain":
            lines += [f"# {line}" for line in _arithmetic(recipe)]
    for task, values in recipe.task_tables.items():
        resolved = recipe.task(task).config.model_dump(mode="json")
        lines += ["", f"[tasks.{task}]", *_table(f"tasks.{task}", {**values, **resolved}, recipe.sources)]
    return "\n".join(lines) + "\n"


def _table(path: str, values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            continue
        source = sources.get(f"{path}.{key}") or sources.get(path)
        note = f"  # {source}" if source else ""
        yield f"{key} = {_toml(value)}{note}" if value is not None else f"# {key}: none{note}"
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield f"[{path}.{key}]"
            yield from _table(f"{path}.{key}", value, sources)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _arithmetic(recipe: Recipe) -> list[str]:
    train = recipe.pretrain
    lines = [train.lr_arithmetic()]
    rule = train.schedule
    if rule.convention == "simmim" and train.lr_divisor:
        for key in ("warmup_lr", "min_lr"):
            rate = getattr(rule, key)
            lines.append(f"{key} = {rate:g} x {train.batch_size} / {train.lr_divisor} = {rate * train.lr_scale:g}")
    return lines
