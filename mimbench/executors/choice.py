"""Which executor a run asks for, and its options: the user's file, under the grid's, under the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimbench.contract.executor import Executor
from mimbench.contract.validation import validate
from mimbench.errors import InputError, nearest
from mimbench.registry import describe_import_error, installed_points
from mimbench.toml import read_toml

GROUP = "mimbench.executors"
TABLE = "executor"
_KEYS = (TABLE,)


def executor_names() -> list[str]:
    """The executors of all installed packages; imports none."""
    return sorted({point.name for point in installed_points(GROUP)})


def load_executor(name: str) -> type[Executor]:
    """The class of an executor.

    Raises:
        InputError: no package has it, two packages have it, or it cannot be imported.
    """
    points = {point.value: point for point in installed_points(GROUP) if point.name == name}
    if not points:
        raise InputError(f"unknown executor {name!r}{nearest(name, executor_names())}")
    if len(points) > 1:
        raise InputError(f"executor {name!r} is registered twice: {', '.join(points)}; uninstall or rename one")
    (target, point), *_ = points.items()
    try:
        loaded = point.load()
    except Exception as error:
        raise InputError(f"executor {name!r} is broken: {describe_import_error(error)} ({target})") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Executor)):
        raise InputError(f"executor {name!r} is broken: {target} is no subclass of mimbench.api.Executor")
    return loaded


def choose_executor(name: str, jobs: int | None, settings: Mapping[str, Any], grid: Mapping[str, Any]) -> Executor:
    """The executor of a command, with its options.

    Args:
        jobs: of --jobs; None if it is not set.
        settings: of --set executor.KEY=VALUE, by key.
        grid: the table [executor] of the grid file.

    Raises:
        InputError: there is no such executor, or an option is unknown or has a wrong value.
    """
    kind = load_executor(name)
    table: dict[str, Any] = {}
    for defaults in (_user_table(), check_table(grid, "the grid file")):
        if defaults.get("name", name) == name:  # a table may be meant for another executor
            table |= {key: value for key, value in defaults.items() if key != "name"}
    table |= settings
    if jobs is not None:
        table["jobs"] = jobs
    return kind(validate(kind.Config, table, TABLE))


def user_file() -> Path:
    """The file with a user's defaults: MIMBENCH_CONFIG, or mimbench/config.toml in the user's folder of settings."""
    if named := os.environ.get("MIMBENCH_CONFIG"):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "mimbench" / "config.toml"


def check_table(table: Any, where: str) -> dict[str, Any]:
    """The table [executor] of a file. Raises InputError if it is no table, or its name is no executor's.

    The options are checked once it is known for which executor they are.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{TABLE} in {where} is a table, such as [executor] with partition = ..., not {table!r}")
    name = table.get("name")
    if name is not None and name not in executor_names():
        raise InputError(f"executor.name in {where}: unknown executor {name!r}{nearest(str(name), executor_names())}")
    return dict(table)


def _user_table() -> dict[str, Any]:
    path = user_file()
    if not path.exists() and "MIMBENCH_CONFIG" not in os.environ:
        return {}
    content = read_toml(path, "settings file")
    for key in content:
        if key not in _KEYS:
            raise InputError(f"unknown key {key!r} in settings file {path}{nearest(key, _KEYS)}")
    return check_table(content.get(TABLE, {}), f"settings file {path}")
