"""Whose code raised an error: the plugin, its package and the line, for messages."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from mimbench import registry
from mimbench.contract import Dataset, Encoder, Method, Task


class _Plugin(NamedTuple):
    kind: registry.Registry
    name: str
    cls: Any


def whose(error: BaseException) -> str:
    """ "method 'x' of package 0.1, x.py:69 in step": the innermost line of a plugin's code; "" if there is none.

    Code of other packages comes before mimbench's own plugins: what they call with wrong values fails in there.
    """
    plugins = [_Plugin(kind, name, cls) for kind in registry.ALL for name, cls in kind.loaded().items()]
    frames = list(traceback.walk_tb(error.__traceback__))[::-1]
    found = [(index, frame, line) for index, (frame, line) in enumerate(frames) if _owners(frame, plugins)]
    if not found:
        return ""
    foreign = [one for one in found if not all(map(_is_built_in, _owners(one[1], plugins)))]
    index, frame, line = (foreign or found)[0]
    return f"{_in_words(frame, [outer for outer, _ in frames[index:]], plugins)}, {_place(frame, line)}"


def _in_words(frame: FrameType, outer: list[FrameType], plugins: list[_Plugin]) -> str:
    """The plugin that the code belongs to; of several in one package, the one whose method runs."""
    owners = _owners(frame, plugins)
    owners.sort(key=lambda plugin: len(plugin.cls.__mro__), reverse=True)  # a subclass before what it derives from
    running = [plugin for one in outer for plugin in owners if _runs(one, plugin.cls)]
    kinds = {(plugin.kind.kind, plugin.name): plugin for plugin in (running[:1] or owners)}
    packages = " and ".join(dict.fromkeys(plugin.kind.owner(plugin.name) for plugin in kinds.values()))
    if len(kinds) > 1:
        return f"code of {packages}"
    ((kind, name),) = kinds
    return f"{kind} {name!r} of {packages}"


def _owners(frame: FrameType, plugins: list[_Plugin]) -> list[_Plugin]:
    module = _module(frame)
    return [plugin for plugin in plugins if any(_belongs(module, one) for one in _modules(plugin))]


def _modules(plugin: _Plugin) -> set[str]:
    """Modules of the plugin's class and of its bases, without those of the contract and of other libraries (torch)."""
    bases = [base for base in plugin.cls.__mro__ if issubclass(base, (Method, Task, Dataset, Encoder))]
    return {base.__module__ for base in bases if not base.__module__.startswith("mimbench.contract")}


def _belongs(module: str, of_class: str) -> bool:
    """Whether a module is the class's own, or another one of its package."""
    top = of_class.partition(".")[0]
    return module == of_class or (top != "mimbench" and module.startswith(f"{top}."))


def _runs(frame: FrameType, cls: Any) -> bool:
    one = frame.f_locals.get("self", frame.f_locals.get("cls"))
    return isinstance(one, cls) or one is cls


def _is_built_in(plugin: _Plugin) -> bool:
    return plugin.kind.owner(plugin.name).partition(" ")[0] == "mimbench"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _place(frame: FrameType, line: int) -> str:
    path = Path(frame.f_code.co_filename)
    depth = _module(frame).count(".") + 1 + (path.name == "__init__.py")
    return f"{'/'.join(path.parts[-depth:])}:{line} in {frame.f_code.co_name}"
