"""The code of plugins, as records and checkpoints note it, and whether it has changed without a new version."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mimbench import registry
from mimbench.harness.planning.cells import Cell, Pretraining

_KINDS = {kind.kind: kind for kind in registry.ALL}
Code = Mapping[str, Mapping[str, Any]]
"""By kind of plugin ("method", "task"...): name, version, package, file, sha256 and commit."""


def code_of_pretraining(pretraining: Pretraining) -> Code:
    """The code of the plugins that shape a checkpoint."""
    recipe = pretraining.recipe
    return {
        kind: code_of_plugin(kind, name)
        for kind, name in (("method", recipe.method), ("encoder", recipe.encoder), ("dataset", recipe.dataset))
    }


def code_of_cell(cell: Cell) -> Code:
    """The code of the plugins that shape a record. The dataset is that of the task."""
    recipe = cell.pretraining.recipe
    names = {"method": recipe.method, "encoder": recipe.encoder, "dataset": cell.dataset_name, "task": cell.task.name}
    return {kind: code_of_plugin(kind, name) for kind, name in names.items()}


@lru_cache(maxsize=256)
def code_of_plugin(kind: str, name: str) -> Mapping[str, Any]:
    """The code as it was at the first call in this process, since files may be edited during a long run."""
    cls = _KINDS[kind].load(name)
    files = _files(cls)
    return {
        "name": name,
        "version": getattr(cls, "version", None),
        "package": _KINDS[kind].owner(name),
        "file": files[0].name if files else None,
        "sha256": _digest(files),
        "commit": _commit(files[0].parent) if files else None,
    }


def describe_changes(recorded: Any, current: Code, what: str) -> Iterator[str]:
    """A line per plugin whose code has changed although its version has not.

    Args:
        recorded: provenance of a record or checkpoint. Old ones hold no code and give no lines.
        current: the code now.
        what: what was done with the recorded code, such as "this was recorded".
    """
    plugins = recorded.get("plugins") if isinstance(recorded, Mapping) else None
    for kind, code in current.items():
        before = plugins.get(kind) if isinstance(plugins, Mapping) else None
        if not isinstance(before, Mapping) or not before.get("sha256") or not code["sha256"]:
            continue
        is_same_version = all(before.get(key) == code[key] for key in ("name", "version"))
        if is_same_version and before["sha256"] != code["sha256"]:
            advice = ": rerun with --fresh"
            if code["version"]:
                advice = f", and its version is still {code['version']!r}: raise `version`, or rerun with --fresh"
            is_path = Path(str(code["package"])).name == code["file"]  # a file of --plugin has no package
            places = code["package"] if is_path else f"{code['package']}, {code['file']}"
            where = f"{kind} {code['name']!r} ({places})"
            yield f"code of {where} has changed since {what}{advice}"


def _files(cls: type) -> list[Path]:
    """The file of a plugin's module, and the other files of its package if the package holds no other plugin."""
    try:
        module = Path(inspect.getfile(cls))
    except (TypeError, OSError):
        return []
    package = cls.__module__.rpartition(".")[0]
    if not package or any(_is_within(value, package) and value != cls.__module__ for value in _modules()):
        return [module]
    return [module, *sorted(path for path in module.parent.rglob("*.py") if path != module)]


@lru_cache(maxsize=1)
def _modules() -> frozenset[str]:
    """The modules of all registered plugins."""
    return frozenset(target.partition(":")[0] for kind in registry.ALL for target in kind.targets())


def _is_within(module: str, package: str) -> bool:
    return module.startswith(f"{package}.")


def _digest(files: list[Path]) -> str | None:
    """Hash of the files' contents; None if one cannot be read."""
    try:
        contents = [path.read_bytes() for path in files]
    except OSError:
        return None
    if len(contents) > 1:
        contents = ["".join(hashlib.sha256(content).hexdigest() for content in contents).encode()]
    return hashlib.sha256(contents[0]).hexdigest() if contents else None


@lru_cache(maxsize=64)
def _commit(folder: Path) -> str | None:
    """Commit of the git checkout around a folder, with "+" if the folder has changes; None if there is no checkout."""
    commit = git(folder, "rev-parse", "HEAD")
    if not commit or not git(folder, "ls-files", "--", "*.py"):
        return None
    return commit + ("+" if git(folder, "status", "--porcelain", "--", ".") else "")


def git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command on the checkout around `folder`; None if git fails or is not installed."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
