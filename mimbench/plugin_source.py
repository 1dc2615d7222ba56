"""What the source file of a plugin says about it, read without importing it; and where a class is defined."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_MAX_IMPORTS = 5
"""How many `from a import b` are followed to the file that defines a class."""


@dataclass(frozen=True)
class PluginSource:
    """summary: the first sentence of the class's docstring, or "". problem: why an import would fail, if that shows."""

    summary: str = ""
    problem: str | None = None


def read_source(target: str) -> PluginSource:
    """Read the file that an entry point names.

    Args:
        target: the value of an entry point, such as "package.module:Class".
    """
    module, _, path = target.partition("[")[0].replace(" ", "").partition(":")
    try:
        file = find_file(module)
        if file is None:
            return PluginSource()
        tree = _parse(file)
    except ModuleNotFoundError as error:
        return PluginSource(problem=f"ModuleNotFoundError: {error}")
    except SyntaxError as error:
        return PluginSource(problem=f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})")
    except (OSError, ValueError) as error:
        return PluginSource(problem=f"{type(error).__name__}: {error}")
    name = path.partition(".")[0]
    if name and not _may_define(tree, name):
        return PluginSource(problem=f"AttributeError: {file} defines no {name!r}")
    return PluginSource(_first_sentence(_docstring(module, name, _MAX_IMPORTS)))


def find_file(module: str) -> Path | None:
    """The source file of a module; None if it has none, as a compiled or zipped module.

    Finding a submodule with `find_spec` would import its package, so only the top-level package is found that way and
    the rest by path.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {top!r}")
    file = _source_file(spec.origin)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for count, part in enumerate(rest, start=2):
        candidates = [folder / part for folder in folders]
        file = next((existing for path in candidates if (existing := _file_at(path)) is not None), None)
        folders = [path for path in candidates if path.is_dir()]
        if file is None and not folders:
            if any(_is_compiled(path) for path in candidates) or not all(path.parent.is_dir() for path in candidates):
                return None
            raise ModuleNotFoundError(f"No module named {'.'.join([top, *rest][:count])!r}")
    return file


def _source_file(origin: str | None) -> Path | None:
    return Path(origin) if origin and origin.endswith(".py") and Path(origin).is_file() else None


def _file_at(path: Path) -> Path | None:
    """The file of the module at `path`, which has no suffix; a package comes before a module of the same name."""
    return next((file for file in (path / "__init__.py", path.with_name(f"{path.name}.py")) if file.is_file()), None)


def _is_compiled(path: Path) -> bool:
    return any(path.parent.glob(f"{path.name}.*.so")) or any(path.parent.glob(f"{path.name}*.pyd"))


@cache
def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), filename=str(file))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import: those of the module, and those within its if, try, with and loops."""
    for statement in body:
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, ast.stmt):
                    yield from _statements([child])
                elif isinstance(child, ast.ExceptHandler | ast.match_case):
                    yield from _statements(child.body)


def _may_define(tree: ast.Module, name: str) -> bool:
    """Whether the module can have an attribute `name`. Star imports and module __getattr__ can define any name."""
    for statement in _statements(tree.body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [statement.name]
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
        else:
            names = [
                node.id
                for node in ast.walk(statement)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            ]
        if {name, "*", "__getattr__"}.intersection(names):
            return True
    return False


def _docstring(module: str, name: str, imports_left: int) -> str:
    """The docstring of a class or function, in whichever file defines it; else that of its module; else ""."""
    try:
        file = find_file(module)
        if file is None:
            return ""
        tree = _parse(file)
    except (ImportError, SyntaxError, OSError, ValueError):
        return ""
    for statement in _statements(tree.body):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return ast.get_docstring(statement) or ast.get_docstring(tree) or ""
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if name == (alias.asname or alias.name) and imports_left:
                    return _docstring(_absolute(statement, module, file), alias.name, imports_left - 1)
    return ast.get_docstring(tree) or ""


def _absolute(statement: ast.ImportFrom, module: str, file: Path) -> str:
    """The module that `from ..a import b` imports from."""
    if not statement.level:
        return statement.module or ""
    levels_up = statement.level - (file.name == "__init__.py")
    package = module.split(".")
    package = package[: len(package) - levels_up]
    return ".".join([*package, *([statement.module] if statement.module else [])])


def _first_sentence(docstring: str) -> str:
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    sentence, end, _ = paragraph.partition(". ")
    return sentence + end.strip()


def location(thing: Any) -> str:
    """File and line of a function or class; for a class without a file, of its nearest base that has one."""
    for definition in getattr(thing, "__mro__", (thing,)):
        with suppress(TypeError, OSError):
            return f"{inspect.getsourcefile(definition)}:{inspect.getsourcelines(definition)[1]}"
    return "no file"
