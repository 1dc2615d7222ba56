"""Where a record comes from: code, packages, machine, command."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mimbench
from mimbench.engine.device import get_world_size

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


def provenance() -> dict[str, Any]:
    """Plain JSON data; `commit` is None where mimbench does not run from its own git checkout."""
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
        "processes": get_world_size(),
    }


def package_versions() -> dict[str, str | None]:
    """Installed versions; None where a package is missing."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def _commit() -> tuple[str | None, bool | None]:
    source = Path(mimbench.__file__).parent
    if _git(source, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    changes = _git(source.parent, "status", "--porcelain", "--", ".", ":!results")  # records are no code
    return _git(source, "rev-parse", "HEAD"), None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
