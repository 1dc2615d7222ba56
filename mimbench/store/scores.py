"""Files of scores of single samples: one column per name, packed as scores.npz, an artifact of a record."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mimbench.errors import InputError
from mimbench.store.artifacts import OutsideError, damage_of, find_artifact, results_folders

SCORES, FILE = "scores", "scores.npz"
"""Name of the artifact in records, and of its file."""
SPLIT = "split"
"""The entry that is no column: name of the split that the samples come from."""
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def pack_scores(columns: Mapping[str, np.ndarray], split: str) -> bytes:
    """The content of a file of scores. Equal columns give equal bytes.

    Args:
        columns: int64 or float32 [N] by name, the ids as "id".
        split: the dataset's split that the samples come from.
    """
    if SPLIT in columns:
        raise ValueError(f"a column may not be called {SPLIT!r}")
    buffer = io.BytesIO()
    # numpy's ZIP entries carry a fixed date, so the bytes depend on the content alone.
    np.savez_compressed(buffer, allow_pickle=False, **{SPLIT: np.array(split)}, **columns)
    return buffer.getvalue()


def read_scores(record: Path, body: Mapping[str, Any]) -> tuple[str, dict[str, np.ndarray]]:
    """The scores of a record: the name of the split, and its columns by name, [N] each.

    Args:
        record: file of the record.
        body: its content.

    Raises:
        InputError: the record has none, or their file is missing or damaged.
    """
    relative = body["artifacts"].get(SCORES)
    if relative is None:
        task = body["task"]["name"]
        raise InputError(
            f"record {record} has no scores of single samples: task {task!r} reports none, or the record was made "
            "before it did; run it again with --fresh"
        )
    try:
        path = find_artifact(results_folders(record.absolute()), relative)
    except OutsideError as error:
        raise InputError(f"{error}: the scores of record {record}; see `mimbench verify`") from error
    if path is None:
        raise InputError(f"{relative}, the scores of record {record}, is missing; copy `artifacts` with the records")
    remedy = "restore the file, or run the task again with --fresh"
    if problem := damage_of(path, body.get("artifacts_sha256", {}).get(SCORES)):
        raise InputError(f"{path}, the scores of record {record}, {problem}; {remedy}")
    try:
        with np.load(path, allow_pickle=False) as content:
            columns = {name: content[name] for name in content.files}
        return str(columns.pop(SPLIT)), columns
    except _UNREADABLE as error:
        raise InputError(f"{path}, the scores of record {record}, is no file of scores; {remedy}") from error
