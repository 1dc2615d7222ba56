"""Recipes and tables of presets that packages ship, from entry points; no package is imported.

    [project.entry-points."mimbench.recipes"]
    shapes-tiny = "my_package:shapes_tiny.toml"

    [project.entry-points."mimbench.preset_tables"]
    smoke = "my_package:smoke.toml"

The value of an entry point is a package and a TOML file in its folder. Under "mimbench.recipes" the name is that of the
recipe. Under "mimbench.preset_tables" it is that of a preset, which the tables of the file then belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from mimbench import registry
from mimbench.errors import InputError
from mimbench.plugin_source import find_file
from mimbench.toml import read_toml

RECIPES = "mimbench.recipes"
PRESET_TABLES = "mimbench.preset_tables"
_KINDS = {f"{kind.kind}s": kind for kind in registry.ALL}


@dataclass(frozen=True)
class PackageFile:
    """A TOML file that an entry point names, and the package with its version that declares it."""

    point: EntryPoint
    owner: str

    @property
    def path(self) -> Path:
        """The file; raises InputError if its package has no folder."""
        package, _, name = self.point.value.partition(":")
        try:
            module = find_file(package.strip())
        except ModuleNotFoundError as error:
            raise InputError(f"{self}: {error}") from error
        if module is None or not name.strip().endswith(".toml"):
            raise InputError(f'{self} is no file of a package; write its entry point as "package:file.toml"')
        return module.parent / name.strip()

    def read(self) -> dict[str, Any]:
        """The content of the file; raises InputError, which names the owner, if it cannot be read."""
        return read_toml(self.path, f"{self}, file")

    def __str__(self) -> str:
        what = "recipe" if self.point.group == RECIPES else "tables of preset"
        return f"{what} {self.point.name!r} of {self.owner} ({self.point.value})"


def package_recipes() -> dict[str, list[PackageFile]]:
    """Recipes of packages by name; several under one name are a collision."""
    return _files(RECIPES)


def find_recipe(name: str, presets: Mapping[str, str]) -> PackageFile | None:
    """The recipe that a package ships under `name`; None if there is none.

    Args:
        presets: names of presets -> who owns them.

    Raises:
        InputError: several packages ship a recipe of this name, or it is that of a preset; the error names all owners.
    """
    files = package_recipes().get(name, [])
    owners = ([presets[name]] if name in presets else []) + [f"{file.owner} ({file.point.value})" for file in files]
    if len(owners) > 1:
        raise InputError(
            f"recipe {name!r} is registered twice, by {' and '.join(owners)}; uninstall or rename one of them"
        )
    return files[0] if files else None


def preset_tables(preset: str) -> list[tuple[str, dict[str, Any]]]:
    """Tables that packages ship for a preset, each with its owner. They set options of the package's own plugins.

    Raises:
        InputError: a file cannot be read, or has a table for something that is no plugin of its package.
    """
    tables = []
    for file in _files(PRESET_TABLES).get(preset, []):
        content = file.read()
        for kind, entries in content.items():
            if kind == "sources":
                continue
            if kind not in _KINDS or not isinstance(entries, Mapping):
                raise InputError(
                    f"{file} has [{kind}]; such tables are [methods.NAME], [tasks.NAME], [datasets.NAME] and "
                    "[encoders.NAME] of the package's plugins, and [sources]"
                )
            for name in entries:
                owner = _KINDS[kind].owner(name)
                if owner != file.owner:
                    raise InputError(
                        f"{file} has [{kind}.{name}], and {_KINDS[kind].kind} {name!r} is of {owner}; leave it out"
                    )
        tables.append((file.owner, content))
    return tables


def _files(group: str) -> dict[str, list[PackageFile]]:
    files: dict[str, list[PackageFile]] = {}
    for point in sorted(registry.installed_points(group), key=lambda point: (point.name, registry.owner_of(point))):
        same_name = files.setdefault(point.name, [])
        file = PackageFile(point, registry.owner_of(point))
        if (file.owner, point.value) not in [(other.owner, other.point.value) for other in same_name]:
            same_name.append(file)
    return files
