"""The provenance of a record or checkpoint: code, packages, machine, command."""

from __future__ import annotations

import platform
import shlex
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mimbench.engine.ranks import describe_processes
from mimbench.harness.planning.code import Code, git

PACKAGES = (
    "mimbench",
    "torch",
    "torchvision",
    "timm",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmdetection",
    "scikit-learn",
    "numpy",
    "pandas",
)


def provenance(plugins: Code | None = None) -> dict[str, Any]:
    """Provenance as plain JSON data. `commit` is None if mimbench does not run from its own git checkout.

    Args:
        plugins: the code of the plugins that made the record or checkpoint.
    """
    commit, dirty = _commit()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["mimbench", *sys.argv[1:]]),
        "commit": commit,
        "dirty": dirty,
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        **describe_processes(),
        **({"plugins": {kind: dict(code) for kind, code in plugins.items()}} if plugins else {}),
    }


def package_versions() -> dict[str, str | None]:
    """Installed versions; None for a package that is missing."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def _commit() -> tuple[str | None, bool | None]:
    source = Path(__file__).parents[2]
    if git(source, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    changes = git(source.parent, "status", "--porcelain", "--", ".", ":!results")  # records are not code
    return git(source, "rev-parse", "HEAD"), None if changes is None else bool(changes)
