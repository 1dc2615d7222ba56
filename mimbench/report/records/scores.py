"""Scores of single samples as tidy pandas frames, of one record or of several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mimbench.errors import InputError
from mimbench.store.reading import read_body
from mimbench.store.scores import read_scores

ID = "id"


def load_scores(record: str | Path) -> pd.DataFrame:
    """What a task measured of each sample: one row per sample, in the order of the task.

    The hash of the file, scores.npz, is compared with that in the record.

    Args:
        record: file of a record, such as one of the column "file" of `load_records`.

    Returns:
        Columns "id" (position in the split), "label" and "attribute.NAME" if the dataset has them, then those of the
        task: "prediction" (a class), "loss" (nats), "confidence" (0 to 1) or others.

    Raises:
        InputError: the record is damaged or has no scores, or their file is missing or damaged.
    """
    path = Path(record)
    _, columns = read_scores(path, read_body(path))
    return pd.DataFrame(columns)


def join_scores(records: Iterable[str | Path]) -> pd.DataFrame:
    """The scores of several records on the same samples: one row per sample and record.

    `frame.pivot(index="id", columns="record", values="loss")` is the table of all losses, one row per sample.

    Args:
        records: files of records on the same split of the same dataset, each once.

    Returns:
        Columns "record" (its id), "method", "seed", and then those of `load_scores` which all records have. Rows are in
        the order of the records, and of ids within each.

    Raises:
        InputError: as `load_scores`; or there are no records, one is listed twice, or two are of other samples.
    """
    frames: list[pd.DataFrame] = []
    first: tuple[Path, str, str, pd.DataFrame] | None = None
    names: set[str] = set()
    for path in map(Path, records):
        body = read_body(path)
        split, columns = read_scores(path, body)
        frame = pd.DataFrame(columns).sort_values(ID, ignore_index=True)
        content = body["dataset"]["version"]
        if body["id"] in names:
            raise InputError(f"record {body['id']} is listed twice ({path}); name each record once")
        names.add(body["id"])
        first = first or (path, content, split, frame)
        if problem := _difference(first, content, split, frame):
            raise InputError(
                f"the scores of records {first[0]} and {path} do not belong together: {problem}; join records on the "
                "same data only"
            )
        frame.insert(0, "record", body["id"])
        frame.insert(1, "method", body["method"]["name"])
        frame.insert(2, "seed", body["seed"])
        frames.append(frame)
    if not frames:
        raise InputError("there are no records to join; name one or more files of records")
    return pd.concat(frames, join="inner", ignore_index=True)


def _difference(first: tuple[Path, str, str, pd.DataFrame], content: str, split: str, frame: pd.DataFrame) -> str:
    """What differs between the samples of the first record and of another one; "" if they are the same."""
    _, first_content, first_split, first_frame = first
    if content != first_content:
        return f"their datasets have the fingerprints {first_content} and {content}"
    if split != first_split:
        return f"one is of the {first_split} split, the other of the {split} split"
    if not np.array_equal(frame[ID], first_frame[ID]):
        one, other = set(first_frame[ID]) - set(frame[ID]), set(frame[ID]) - set(first_frame[ID])
        return f"{len(one)} samples are in the first only, {len(other)} in the second only"
    return ""
