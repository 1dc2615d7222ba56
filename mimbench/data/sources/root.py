"""The folder that a dataset by path is read from."""

from __future__ import annotations

from pathlib import Path

from mimbench.errors import InputError
from mimbench.text import printable


def require_root(root: Path | None, dataset: str, which: str) -> Path:
    """`root`, expanded.

    Args:
        dataset: its name, for messages.
        which: folder it is, such as "of the folder with the shards", for messages.

    Raises:
        InputError: `root` is not set, absent or not a folder.
    """
    if root is None:
        raise InputError(f"{dataset} needs data.root: pass --set data.root=PATH {which}")
    root = root.expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"data.root {printable(root)} {what}: pass --set data.root=PATH {which}")
    return root
