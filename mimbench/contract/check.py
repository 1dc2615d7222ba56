"""Checks of a plugin's class when it is loaded: missing parts, and options without a stable written form."""

from __future__ import annotations

import collections.abc as abc
import datetime
import decimal
import enum
import inspect
import pathlib
import types
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from mimbench.contract.abilities import find_unknown_ability
from mimbench.contract.audit import Audit
from mimbench.contract.check_names import CHECKS
from mimbench.contract.config import Config, parts_of
from mimbench.contract.dataset import DataConfig, Dataset
from mimbench.contract.encoder import Encoder
from mimbench.contract.method import Method
from mimbench.contract.monitor import Monitor
from mimbench.contract.task import Metric, Task, TaskConfig
from mimbench.contract.train_config import TrainConfig
from mimbench.errors import InputError, nearest

_BASES: dict[str, type] = {
    "method": Method,
    "task": Task,
    "dataset": Dataset,
    "encoder": Encoder,
    "monitor": Monitor,
}
_CONFIGS: dict[str, type[Config]] = {"method": Config, "task": TaskConfig, "dataset": DataConfig, "encoder": Config}
_RESERVED = {
    "method": ("name", "version"),
    "encoder": ("name", "version"),
    "dataset": ("name", "version"),
    "task": ("task", "version", "input", "precision"),
}
"""Keys that mimbench writes next to a plugin's options, in recipes, fingerprints and protocols."""
_RENAMED = {"needs": "encoder_needs", "official_names": "official", "official_configs": "official"}
"""Former names of what a method declares. Nothing reads them, so such a method would have no requirements."""
_PLAIN = (
    *(str, int, float, bool, types.NoneType),
    *(list, tuple, dict, abc.Sequence, abc.Mapping, abc.Iterable),
    *(pathlib.PurePath, enum.Enum, datetime.date, datetime.time, decimal.Decimal),
)
"""Types whose values have the same written form in every process."""
_SETS = (set, frozenset, abc.Set)


def find_problem(kind: str, name: str, plugin: Any) -> str | None:
    """The first reason why a plugin cannot be used, with the remedy; None if it can.

    Args:
        kind: "method", "task", "dataset", "encoder" or "monitor".
        name: name of its entry point.
        plugin: the object that the entry point names.
    """
    base = _BASES[kind]
    if not inspect.isclass(plugin):
        return f"it is a {type(plugin).__name__}, not a class; let the entry point name a subclass of {_public(base)}"
    if not issubclass(plugin, base):
        return f"class {plugin.__name__} is not a subclass of {_public(base)}; derive it from that"
    return next(_problems(kind, name, plugin), None)


def _problems(kind: str, name: str, plugin: Any) -> Iterator[str]:
    if missing := sorted(getattr(plugin, "__abstractmethods__", ())):
        them = "it" if len(missing) == 1 else "them"
        yield f"class {plugin.__name__} does not define {', '.join(missing)}; add {them}"
    if kind == "encoder":
        yield from _text(plugin, "kind", '"vit"')
    else:
        yield from _text(plugin, "name", f'"{name}"')
        if plugin.name != name:
            yield f"it is named {plugin.name!r}, and its entry point {name!r}; use the same name for both"
    if kind == "monitor":
        return
    if kind != "dataset":
        yield from _text(plugin, "version", '"1"')
    yield from _problems_of_kind(kind, plugin)
    checked_as = "audit" if issubclass(plugin, Audit) else kind
    if problem := find_wrong_waiver(checked_as, plugin.waivers, CHECKS[checked_as]):
        yield problem
    yield from _config_problems(kind, plugin.Config)


def find_wrong_waiver(kind: str, waivers: Any, checks: abc.Collection[str]) -> str | None:
    """The first waiver that names no check or has no reason, with the remedy; None if all are valid.

    Args:
        kind: what the plugin is checked as: "method", "task", "audit", "dataset" or "encoder".
        waivers: of the plugin; should be {name of the check: reason}.
        checks: names of the checks of this kind.
    """
    if not isinstance(waivers, abc.Mapping):
        return f"waivers = {waivers!r} is not a table; write waivers = {{CHECK: REASON}}"
    for name, reason in waivers.items():
        if name not in checks:
            return f"waivers: {name!r} is no check of {_with_article(kind)}{nearest(str(name), checks)}"
        if not (isinstance(reason, str) and reason.strip()):
            return f"waivers: {name!r} has no reason; say why the check may fail"
    return None


def _text(plugin: Any, attribute: str, example: str) -> Iterator[str]:
    value = getattr(plugin, attribute, None)
    if value is None:
        yield f"class {plugin.__name__} has no `{attribute}`; add {attribute} = {example}"
    elif not isinstance(value, str):
        yield f"{attribute} = {value!r} is not a string; write {attribute} = {example}"


def _problems_of_kind(kind: str, plugin: Any) -> Iterator[str]:
    if kind == "method":
        for former, current in _RENAMED.items():
            if hasattr(plugin, former):
                yield f"class {plugin.__name__} declares `{former}`, which is now called `{current}`; rename it"
        if missing := plugin.missing_parts():
            yield (
                f"class {plugin.__name__} has no training step: it does not define {', '.join(missing)}; add "
                f"{'it' if len(missing) == 1 else 'them'}, or define `step` itself"
            )
        yield from _abilities(plugin, "encoder_needs")
        for name in ("views", "masks_only", "check_training"):
            if not isinstance(inspect.getattr_static(plugin, name), classmethod):
                yield f"{name} is not a class method; write @classmethod above it, with `cls` as first argument"
        yield from _names(plugin, "supervision", tuple)
        yield from _names(plugin, "not_stored", tuple)
    elif kind == "encoder" and not isinstance(inspect.getattr_static(plugin, "can"), property):
        yield from _abilities(plugin, "can")
    elif kind == "task":
        yield from _names(plugin, "needs", frozenset)
        yield from _abilities(plugin, "encoder_needs")
        metrics = getattr(plugin, "metrics", None)
        if not isinstance(metrics, tuple) or not metrics or not all(isinstance(one, Metric) for one in metrics):
            yield f"class {plugin.__name__} declares no `metrics`; add a tuple of Metric, the primary one first"
    elif kind == "dataset" and not isinstance(inspect.getattr_static(plugin, "provides"), property):
        yield from _names(plugin, "provides", frozenset)


def _abilities(plugin: Any, attribute: str) -> Iterator[str]:
    """A set of names from `ABILITIES`. Another name would be a need that no encoder meets."""
    wrong = list(_names(plugin, attribute, frozenset))
    yield from wrong
    unknown = None if wrong else find_unknown_ability(frozenset(getattr(plugin, attribute)))
    if unknown:
        yield f"{attribute}: {unknown}; use names from mimbench.api.ABILITIES"


def _names(plugin: Any, attribute: str, form: Callable[..., Any]) -> Iterator[str]:
    """A collection of strings. A single string is refused, because it would be read as a collection of letters."""
    value = getattr(plugin, attribute)
    example = '("a", "b")' if form is tuple else 'frozenset({"a", "b"})'
    if isinstance(value, str) and form is tuple:
        example = f'("{value}",)'
    elif isinstance(value, str):
        example = f'frozenset({{"{value}"}})'
    is_collection = isinstance(value, set | frozenset if form is frozenset else list | tuple | set | frozenset)
    if not is_collection or not all(isinstance(name, str) for name in value):
        yield f"{attribute} = {value!r} is not a collection of names; write {attribute} = {example}"


def _config_problems(kind: str, config: Any) -> Iterator[str]:
    base = _CONFIGS[kind]
    if not (inspect.isclass(config) and issubclass(config, base)):
        what = config.__name__ if inspect.isclass(config) else repr(config)
        yield f"its Config is {what}, not a subclass of {_public(base)}; derive it from that"
        return
    for field in config.model_fields:
        if field in _RESERVED[kind]:
            yield f"its option {field!r} has a name that mimbench uses itself; rename it"
    yield from _option_problems(config, "", ())
    yield from _default_problems(config)


def _default_problems(config: type[Config]) -> Iterator[str]:
    """Defaults that the config itself refuses. Otherwise the error would blame users who did not set the option."""
    try:
        config()
    except ValidationError as error:
        for one in error.errors(include_url=False):
            option = ".".join(map(str, one["loc"]))
            if option and one["type"] != "missing":
                yield (
                    f"the default of its option {option!r}, {one['input']!r}, is not valid ({one['msg']}); correct the "
                    "default or the limit"
                )
    except InputError:  # a validator of the config needs more than defaults
        return


def _option_problems(config: type[BaseModel], where: str, above: tuple[type, ...]) -> Iterator[str]:
    for name, field in config.model_fields.items():
        if issubclass(config, Config) and config.is_cosmetic(name):
            continue
        for part in parts_of(field.annotation):
            yield from _type_problems(part, f"{where}{name}", (*above, config))


def _type_problems(part: Any, option: str, above: tuple[type, ...]) -> Iterator[str]:
    if part is Any or not inspect.isclass(part) or part in above:
        return
    if issubclass(part, _SETS):
        yield (
            f"its option {option!r} is a {part.__name__}, whose order, and so its fingerprint, differs from process to "
            "process; use a tuple or a sorted list"
        )
    elif issubclass(part, Config):
        if issubclass(part, TrainConfig):
            for name in ("epochs", "checkpoint_every"):
                if types.NoneType not in parts_of(part.model_fields[name].annotation):
                    yield (
                        f"its option '{option}.{name}' cannot be none, so its counterpart in steps cannot replace it; "
                        "declare it as `int | None`"
                    )
        yield from _option_problems(part, f"{option}.", above)
    elif issubclass(part, BaseModel):
        yield f"its option {option!r} is a {part.__name__}, not a subclass of {_public(Config)}; derive it from that"
    elif not issubclass(part, _PLAIN):
        yield (
            f"its option {option!r} is a {part.__name__}, which recipes cannot write and fingerprints cannot hold; use "
            "numbers, strings, paths, lists or tables of them"
        )


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeio' else 'a'} {kind}"


def _public(base: type) -> str:
    return f"mimbench.api.{base.__name__}"
