"""Finds the plugin whose code raised an error: its name, package and line, for messages."""

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


def describe_culprit(error: BaseException, *, of_others_only: bool = False) -> str:
    """The plugin and the line that raised an error, such as "method 'x' of package 0.1, x.py:69 in step".

    It is the innermost line of a plugin's code; "" if there is none. Plugins of other packages come first, since they
    may call built-in plugins with wrong values, which then fail inside the built-in code.

    Args:
        of_others_only: name no built-in plugin.
    """
    plugins = [_Plugin(kind, name, cls) for kind in registry.ALL for name, cls in kind.loaded().items()]
    frames = list(traceback.walk_tb(error.__traceback__))[::-1]
    candidates = []  # (index in frames, whether it belongs to built-in plugins only)
    for index, (frame, _) in enumerate(frames):
        owners = _owners(frame, plugins)
        if owners and not (of_others_only and all(map(_is_built_in, owners))):
            candidates.append((index, all(map(_is_built_in, owners))))
    if not candidates:
        return ""
    foreign = [index for index, is_built_in in candidates if not is_built_in]
    index = foreign[0] if foreign else candidates[0][0]
    frame, line = frames[index]
    callers = [caller for caller, _ in frames[index:]]
    return f"{_describe_owner(frame, callers, plugins)}, {_place(frame, line)}"


def _describe_owner(frame: FrameType, callers: list[FrameType], plugins: list[_Plugin]) -> str:
    """The plugin that the code of a frame belongs to. If a package has several, the one whose method is running.

    Args:
        callers: the frame and its callers, innermost first.
    """
    owners = _owners(frame, plugins)
    owners.sort(key=lambda plugin: len(plugin.cls.__mro__), reverse=True)  # subclasses before their bases
    running = [plugin for caller in callers for plugin in owners if _runs(caller, plugin.cls)]
    # If no method of a plugin is running (a module-level function, say), all owners are named by their packages.
    culprits = {(plugin.kind.kind, plugin.name): plugin for plugin in (running[:1] or owners)}
    packages = " and ".join(dict.fromkeys(plugin.kind.owner(plugin.name) for plugin in culprits.values()))
    if len(culprits) > 1:
        return f"code of {packages}"
    ((kind, name),) = culprits
    return f"{kind} {name!r} of {packages}"


def _owners(frame: FrameType, plugins: list[_Plugin]) -> list[_Plugin]:
    """The plugins in whose modules or packages the code of a frame lies."""
    module = _module(frame)
    return [plugin for plugin in plugins if any(_belongs(module, one) for one in _modules(plugin))]


def _modules(plugin: _Plugin) -> set[str]:
    """Modules of the plugin's class and its bases, without the contract and other libraries such as torch."""
    bases = [base for base in plugin.cls.__mro__ if issubclass(base, (Method, Task, Dataset, Encoder))]
    return {base.__module__ for base in bases if not base.__module__.startswith("mimbench.contract")}


def _belongs(module: str, of_class: str) -> bool:
    """Whether a module is that of a class, or belongs to the same package. mimbench itself counts as no package."""
    top = of_class.partition(".")[0]
    return module == of_class or (top != "mimbench" and module.startswith(f"{top}."))


def _runs(frame: FrameType, cls: Any) -> bool:
    """Whether a frame is a call of a method of `cls`, by its `self` or `cls`."""
    instance = frame.f_locals.get("self", frame.f_locals.get("cls"))
    return isinstance(instance, cls) or instance is cls


def _is_built_in(plugin: _Plugin) -> bool:
    return plugin.kind.owner(plugin.name).partition(" ")[0] == "mimbench"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _place(frame: FrameType, line: int) -> str:
    path = Path(frame.f_code.co_filename)
    depth = _module(frame).count(".") + 1 + (path.name == "__init__.py")
    return f"{'/'.join(path.parts[-depth:])}:{line} in {frame.f_code.co_name}"
