"""File and line in a plugin's code, for messages."""

from __future__ import annotations

import inspect
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any


def definition(plugin: type[Any], attribute: str = "") -> str:
    """Where a class, or its function `attribute`, is defined: "mine.py:12 in MyMethod.step".

    A function that the class inherits from outside of its package, such as from the contract, is not its own code;
    then it is the place of the class.
    """
    for cls in plugin.__mro__:
        function = vars(cls).get(attribute)
        function = getattr(function, "__func__", getattr(function, "fget", function))
        if inspect.isfunction(function) and _is_code_of(function.__module__, plugin):
            code = inspect.unwrap(function).__code__
            return f"{_short(code.co_filename)}:{code.co_firstlineno} in {cls.__name__}.{attribute}"
    for cls in plugin.__mro__:
        with suppress(TypeError, OSError):
            return f"{_short(inspect.getsourcefile(cls) or '')}:{inspect.getsourcelines(cls)[1]} in {cls.__name__}"
    return f"class {plugin.__name__}"


def raising_line(error: BaseException, plugin: type[Any]) -> str:
    """The innermost line of a plugin's code that an error passed through; empty if there is none."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if _is_code_of(str(frame.f_globals.get("__name__", "")), plugin):
            return f"{_short(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
    return ""


def _is_code_of(module: str, plugin: type[Any]) -> bool:
    """Whether a module is that of the class, or of its package; mimbench itself counts as no package."""
    top = plugin.__module__.partition(".")[0]
    return module == plugin.__module__ or (top != "mimbench" and module.partition(".")[0] == top)


def _short(file: str) -> str:
    """The path relative to the current folder, if it lies in it."""
    path = Path(file)
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return file
