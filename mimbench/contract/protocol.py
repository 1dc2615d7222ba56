"""Protocols: named settings of a task as papers use them, in TOML files with a source for every value."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """Options that a task starts from if a recipe or `--set task.protocol=NAME` names the protocol."""

    summary: str
    """One line that describes it."""
    options: Mapping[str, Any]
    """Options of the task's Config."""
    sources: Mapping[str, str]
    """Dotted path of an option or table -> its source: a paper, or a file of a repository at a commit."""


def load_protocols(package: str, folder: str) -> dict[str, Protocol]:
    """Read the protocols of a task from TOML files.

    Args:
        package: name of the Python package that holds the files.
        folder: folder in the package. Each file NAME.toml holds `summary`, a table `sources`, and the options.

    Returns:
        NAME -> protocol.
    """
    protocols = {}
    for entry in sorted(files(package).joinpath(folder).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            options = tomllib.loads(entry.read_text(encoding="utf-8"))
            summary, sources = options.pop("summary"), options.pop("sources")
            protocols[entry.name.removesuffix(".toml")] = Protocol(summary, options, sources)
    return protocols
