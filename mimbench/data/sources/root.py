"""The folder that a dataset by path is read from."""

from __future__ import annotations

from pathlib import Path

from mimbench.errors import MissingData
from mimbench.text import printable


def require_root(root: Path | None, dataset: str, which: str, option: str = "data.root") -> Path:
    """`root`, expanded.

    Args:
        dataset: its name, for messages.
        which: folder it is, such as "of the folder with the shards", for messages.
        option: path of `root` in the recipe, for messages.

    Raises:
        MissingData: `root` is not set, absent or not a folder.
    """
    if root is None:
        raise MissingData(f"{dataset} needs {option}: pass --set {option}=PATH {which}")
    root = root.expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise MissingData(f"{option} {printable(root)} {what}: pass --set {option}=PATH {which}")
    return root
