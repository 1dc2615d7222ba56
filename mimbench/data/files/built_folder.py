"""Folders of the cache that are built once, and again if a file of them is lost or altered."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from mimbench.data.files.cache import read_derived, write_derived
from mimbench.leases import confirm_leases, hold_lease

_MANIFEST = "manifest.json"


def built_folder(folder: Path, build: Callable[[Path], None], what: str) -> Path:
    """`folder`, whole: as it is, or built anew. Of several processes one builds, and the others wait.

    Args:
        build: writes all files into a folder that it makes.
        what: it does, for those who wait, such as "composing scenes".
    """
    with hold_lease(folder, what):
        if not _is_whole(folder):
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            build(partial)
            write_derived(partial / _MANIFEST, _digests(partial))
            confirm_leases()
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    return folder


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the manifest, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _is_whole(folder: Path) -> bool:
    """Whether every file is as it was built. The seal also detects a manifest that was altered together with a file."""
    manifest = read_derived(folder / _MANIFEST)
    return manifest is not None and manifest == _digests(folder)
