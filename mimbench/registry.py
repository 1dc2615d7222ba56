"""Plugins by name, from entry points and from files of --plugin: listed without importing, loaded on first use."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

from mimbench.advice import describe_invalid
from mimbench.errors import InputError, nearest
from mimbench.plugin_source import location, read_source


@dataclass(frozen=True)
class Plugin:
    """One registered name: the package that owns it, the class it points to, and its problem if it has one."""

    name: str
    owner: str
    target: str
    problem: str | None = None
    summary: str = ""
    """The first sentence of its docstring; empty if its source was not read."""


@dataclass(frozen=True)
class _Claim:
    """An entry point, or a class of a file as one, with its owner: a package and its version, or the file's path."""

    point: EntryPoint
    owner: str

    @property
    def target(self) -> str:
        return self.point.value


class Registry:
    """The plugins of one entry-point group, and those that `add` registers for this process.

    Names are read from package metadata alone. A plugin that cannot be imported, or whose name two packages claim,
    raises an error only when it is loaded. All other plugins still work.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.group = f"mimbench.{kind}s"
        self._loaded: dict[str, Any] = {}
        self._added: dict[str, _Claim] = {}
        self.replacements: dict[str, Any] = {}
        """Plugins by name that `load` returns, unchecked, instead of the registered ones. Tests put plugins here."""

    def add(self, name: str, target: str, owner: str) -> None:
        """Register a plugin for this process, as if an entry point of `owner` named it.

        Args:
            target: "module:Class"; the module is importable.
            owner: path of the file that defines it.

        Raises:
            InputError: another plugin has this name; the error names both owners.
        """
        claim = _Claim(EntryPoint(name, target, self.group), owner)
        known = self._claims().get(name, [])
        if any(other.target == target for other in known):
            return  # the same class, which a package registers or the file did before
        if known:
            raise InputError(_duplicate(self.kind, name, [*known, claim]))
        self._added[name] = claim

    def files(self) -> list[str]:
        """Paths of the files whose plugins were registered for this process, sorted."""
        return sorted({claim.owner for claim in self._added.values()})

    def targets(self) -> list[str]:
        """What every plugin points to: "module:Class"; imports nothing."""
        return sorted(claim.target for claims in self._claims().values() for claim in claims)

    def names(self) -> list[str]:
        """Every registered name, sorted; imports nothing."""
        return sorted(self._claims())

    def load(self, name: str) -> Any:
        """Import the plugin called `name`.

        Raises:
            InputError: the name is unknown (with the nearest ones), claimed by two packages (with
                both), or its module fails to import (with the reason).
        """
        if name in self.replacements:
            return self.replacements[name]
        if name in self._loaded:
            return self._loaded[name]
        claims = self._claims().get(name)
        if claims is None:
            raise InputError(f"unknown {self.kind} {name!r}{nearest(name, self._claims())}")
        if len(claims) > 1:
            raise InputError(_duplicate(self.kind, name, claims))
        broken = self._broken(name, claims[0].owner)
        try:
            plugin = claims[0].point.load()
        except (Exception, SystemExit) as error:
            raise InputError(f"{broken}: {describe_import_error(error)} (imported from {claims[0].target})") from error
        # Imported here, since the contract imports torch and names are listed without it.
        from mimbench.contract.check import find_problem

        problem = find_problem(self.kind, name, plugin)
        if problem:
            raise InputError(f"{broken}: {problem} ({location(plugin)})")
        self._loaded[name] = plugin
        return plugin

    def loaded(self) -> dict[str, Any]:
        """Every plugin that has been loaded, by name."""
        return self._loaded | self.replacements

    def owner(self, name: str) -> str:
        """Name and version of the package that registers `name`, or the path of the file that defines it."""
        claims = self._claims().get(name)
        return claims[0].owner if claims else "no installed package"

    def survey(self) -> list[Plugin]:
        """Import every plugin. A broken one is listed with its problem and raises nothing."""
        return [replace(plugin, problem=self._problem_of_loading(plugin.name)) for plugin in self.outline()]

    def overview(self) -> list[Plugin]:
        """Every registered name with its owner. Imports and reads no plugin, so only duplicates are problems."""
        return [
            Plugin(
                name,
                " and ".join(claim.owner for claim in claims),
                claims[0].target,
                _duplicate(self.kind, name, claims) if len(claims) > 1 else None,
            )
            for name, claims in sorted(self._claims().items())
        ]

    def outline(self) -> list[Plugin]:
        """Every plugin with its summary, read from its source file; imports no plugin.

        Problems that show in the source are reported: a missing module, a syntax error, a missing class. `survey`
        imports the plugins and reports all problems.
        """
        plugins = []
        for plugin in self.overview():
            source = read_source(plugin.target)
            problem = plugin.problem
            if problem is None and source.problem is not None:
                problem = f"{self._broken(plugin.name, plugin.owner)}: {source.problem} (imported from {plugin.target})"
            plugins.append(replace(plugin, problem=problem, summary=source.summary))
        return plugins

    def _broken(self, name: str, owner: str) -> str:
        return f"{self.kind} {name!r} of {owner} is broken"

    def _problem_of_loading(self, name: str) -> str | None:
        try:
            self.load(name)
        except InputError as error:
            return str(error)
        return None

    def _claims(self) -> dict[str, list[_Claim]]:
        claims: dict[str, list[_Claim]] = {}
        installed = [_Claim(point, owner_of(point)) for point in installed_points(self.group)]
        for claim in [*installed, *self._added.values()]:
            known = claims.setdefault(claim.point.name, [])
            if (claim.target, claim.owner) not in [(other.target, other.owner) for other in known]:
                known.append(claim)
        return claims


def installed_points(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of installed packages in one group. Their metadata is read once per process and sys.path."""
    return _installed_points(entry_points, group, tuple(sys.path))


@cache
def _installed_points(read: Callable[..., Any], group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(read(group=group))


def owner_of(point: EntryPoint) -> str:
    """Name and version of the package that declares an entry point."""
    return _name_and_version(point.dist) if point.dist else "an unknown package"


@cache
def _name_and_version(package: Distribution) -> str:
    """Each access to a name or version parses all of the package's metadata."""
    metadata = package.metadata
    return f"{metadata['Name']} {metadata['Version']}"


def describe_import_error(error: BaseException) -> str:
    """The first line of the error of an import. Pydantic's advice is replaced by advice that applies to a Config."""
    text = str(error).strip()
    unknown = re.match(r"Unable to generate pydantic-core schema for <class '([^']+)'>", text)
    if unknown:
        return (
            f"a Config has an option of type {unknown[1]}, which no recipe can give; use numbers, texts, paths, lists "
            "or tables of them"
        )
    return describe_invalid(error) or f"{type(error).__name__}: {' '.join(text.splitlines()[:1])}".rstrip(": ")


def _duplicate(kind: str, name: str, claims: list[_Claim]) -> str:
    owners = " and ".join(f"{claim.owner} ({claim.target})" for claim in claims)
    return f"{kind} {name!r} is registered twice, by {owners}; uninstall or rename one of them"


methods = Registry("method")
tasks = Registry("task")
datasets = Registry("dataset")
encoders = Registry("encoder")

monitors = Registry("monitor")

ALL = (methods, tasks, datasets, encoders)
"""The kinds whose plugins have options and are part of what identifies a result. Monitors are not."""


def added_files() -> list[str]:
    """Paths of the files whose plugins were registered for this process."""
    return sorted({path for kind in ALL for path in kind.files()})
