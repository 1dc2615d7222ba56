"""Plugins from a Python file: the option --plugin registers them for one process, without a package."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from mimbench import registry
from mimbench.errors import InputError
from mimbench.plugin_source import location
from mimbench.registry import describe_import_error

_CLASS_IN_FILE = re.compile(r"(?P<file>.+\.py):(?P<cls>\w+)")


@dataclass(frozen=True)
class FilePlugin:
    """A class of a file, and the name that it is registered under. kind: "method", "task", "dataset", "encoder" or
    "monitor"."""

    kind: str
    name: str
    cls: type


def add_plugin_file(path: Path) -> list[FilePlugin]:
    """Register every Method, Task, Dataset, Encoder and Monitor class of a file, under its name, for this process.

    The name of an encoder is its `kind`. The file is imported as a module, under the name that
    it has in its package, or else under its own name. Its folder (of a package: the folder of the package) is
    appended to sys.path, which Python hands on to worker processes, so that they can import the file too.

    Raises:
        InputError: the file is not there, cannot be imported, defines no plugin, or defines one whose name is taken.
    """
    module = _import(path)
    plugins = list(_plugins(path, module))
    if not plugins:
        raise InputError(
            f"plugin file {path} defines no plugin; derive a class from Method, Task, Dataset or Encoder of "
            "mimbench.api in it"
        )
    kinds = {kind.kind: kind for kind in (*registry.ALL, registry.monitors)}
    for plugin in plugins:
        kinds[plugin.kind].add(plugin.name, f"{module.__name__}:{plugin.cls.__qualname__}", str(path))
    return plugins


def resolve_method(text: str) -> str:
    """The name of a method that is written as FILE.py:Class, after `add_plugin_file`; any other text as it is.

    Raises:
        InputError: see `add_plugin_file`; or the file defines no such method.
    """
    match = _CLASS_IN_FILE.fullmatch(text)
    if match is None and text.endswith(".py"):
        raise InputError(f"--method {text} names a file; write {text}:CLASS, or --plugin {text} --method NAME")
    if match is None:
        return text
    methods = {
        plugin.cls.__name__: plugin.name for plugin in add_plugin_file(Path(match["file"])) if _is_method(plugin)
    }
    if match["cls"] not in methods:
        defined = f"its methods: {', '.join(sorted(methods))}" if methods else "it defines no method"
        raise InputError(f"plugin file {match['file']} has no method class {match['cls']!r}; {defined}")
    return methods[match["cls"]]


def _is_method(plugin: FilePlugin) -> bool:
    return plugin.kind == registry.methods.kind


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        what = "is a folder; name a Python file in it" if path.is_dir() else "does not exist"
        raise InputError(f"plugin file {path} {what}")
    folder, name = _module_of(path)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    _check_name(path, name)
    try:
        with redirect_stdout(sys.stderr):  # standard output is for the result of the command
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(f"plugin file {_place(error, path)}: {_why(error)}") from error


def _module_of(path: Path) -> tuple[Path, str]:
    """The folder from which a file is importable, and the dotted name that it then has."""
    if path.suffix != ".py" or not path.stem.isidentifier():
        name = re.sub(r"\W", "_", path.stem)
        raise InputError(f"plugin file {path} cannot be imported; rename it, such as to {name}.py")
    path = path.resolve()
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts, folder = [folder.name, *parts], folder.parent
    return folder, ".".join(parts).removesuffix(".__init__")


def _check_name(path: Path, name: str) -> None:
    """Raise InputError if `import name` would import another file, such as a module of Python or of a package."""
    top = name.partition(".")[0]
    try:
        loaded = sys.modules.get(name)
        spec = loaded.__spec__ if loaded else find_spec(top)
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    inside = [Path(folder).resolve() for folder in (spec.submodule_search_locations if spec else None) or ()]
    origin = Path(spec.origin).resolve() if spec and spec.origin else None
    if origin == path.resolve() or any(path.resolve().is_relative_to(folder) for folder in inside):
        return
    raise InputError(
        f"plugin file {path}: `import {top}` imports {origin or 'a module of Python'} instead; rename the file, or "
        "uninstall the package of that name"
    )


def _place(error: BaseException, path: Path) -> str:
    """FILE:LINE of the innermost line of the file that raised an error while it was imported."""
    if isinstance(error, SyntaxError) and error.filename:
        same = Path(error.filename).resolve() == path.resolve()
        return f"{path if same else error.filename}:{error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _why(error: BaseException) -> str:
    return f"SyntaxError: {error.msg}" if isinstance(error, SyntaxError) else describe_import_error(error)


def _plugins(path: Path, module: ModuleType) -> Iterator[FilePlugin]:
    """Every plugin that the module defines itself. A class without a name is a base of others, or a mistake."""
    # Imported here, since the contract imports torch.
    from mimbench.contract import Dataset, Encoder, Method, Monitor, Task

    bases: dict[str, type] = {
        "method": Method,
        "task": Task,
        "dataset": Dataset,
        "encoder": Encoder,
        "monitor": Monitor,
    }
    members = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    classes = list(dict.fromkeys(members))
    seen: dict[tuple[str, str], type] = {}
    for cls in classes:
        for kind in (kind for kind, base in bases.items() if issubclass(cls, base)):
            name = _name(kind, cls)
            if name is None:
                if any(issubclass(other, cls) for other in classes if other is not cls):
                    continue
                attribute = "kind" if kind == "encoder" else "name"
                place = location(cls).rpartition(":")[2]
                raise InputError(
                    f'plugin file {path}:{place}: class {cls.__name__} has no {attribute}; add {attribute} = "..."'
                )
            if (kind, name) in seen:
                first = seen[kind, name].__name__
                raise InputError(
                    f"plugin file {path}: classes {first} and {cls.__name__} are both {kind} {name!r}; rename one"
                )
            seen[kind, name] = cls
            yield FilePlugin(kind, name, cls)


def _name(kind: str, cls: Any) -> str | None:
    name = getattr(cls, "kind" if kind == "encoder" else "name", None)
    return name if isinstance(name, str) and name else None
