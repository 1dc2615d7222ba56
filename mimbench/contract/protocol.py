"""Protocols: the named ways in which papers run a task, as TOML files with a source for every value."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """Options that a task starts from when `--set task.protocol=NAME` asks for it."""

    summary: str
    options: Mapping[str, Any]
    """As the task's Config takes them."""
    sources: Mapping[str, str]
    """Where values come from (file of a repository at a commit, or a paper), by dotted path of a value or table."""


def load_protocols(package: str, folder: str) -> dict[str, Protocol]:
    """The protocols in a folder of a package, by the names of their files, NAME.toml.

    A file holds `summary`, a table `sources`, and the options.
    """
    protocols = {}
    for entry in sorted(files(package).joinpath(folder).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            options = tomllib.loads(entry.read_text(encoding="utf-8"))
            summary, sources = options.pop("summary"), options.pop("sources")
            protocols[entry.name.removesuffix(".toml")] = Protocol(summary, options, sources)
    return protocols
