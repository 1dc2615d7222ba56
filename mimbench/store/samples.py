"""Files with the value of each metric on each sample, packed as samples.npz, an artifact of a record.

A metric that counts what is right takes one bit per sample, another mean float32. A mean over groups has the group of
each sample as well. For an average precision, the file has the detections, as matched with the objects; for an mIoU,
counts of pixels of each image and class.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mimbench.errors import InputError
from mimbench.store.artifacts import OutsideError, damage_of, find_artifact, results_folders

SAMPLES, FILE = "samples", "samples.npz"
"""Name of the artifact in records, and of its file."""
_BITS, _VALUES, _COUNT, _GROUPS = "bits.", "values.", "count.", "groups."
_DETECTIONS, _PIXELS = "detections", "pixels."
_COUNTS = ("hits", "truth", "predicted")
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections as `mimbench.api.MatchedDetections`, at the thresholds of one metric."""

    images: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray
    thresholds: tuple[int, ...]
    """Columns of `hits` that the metric is the mean of."""


@dataclass(frozen=True, eq=False)
class Grouped:
    """Values of a metric that is the mean over groups of their means."""

    values: np.ndarray
    """[N]: bool, or float64 in the metric's unit."""
    groups: np.ndarray
    """int64 [N], 0 and more."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels of each image and class, as `mimbench.api.SegmentedPixels`, for one metric."""

    hits: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    score: str
    """What the metric is: "iou", "class-accuracy" or "accuracy"."""


Samples = np.ndarray | Grouped | Detections | Pixels


def pack_samples(
    by_metric: Mapping[str, np.ndarray],
    detections: Sequence[Mapping[str, Any]] = (),
    groups: Mapping[str, np.ndarray] = MappingProxyType({}),
    pixels: Mapping[str, Any] | None = None,
) -> bytes:
    """The content of a file of samples. Equal values give equal bytes.

    Args:
        by_metric: bool [N], right or not; or real [N], in the metric's unit.
        detections: fields of `mimbench.api.MatchedDetections` by name.
        groups: by metric that is a mean over groups: int [N].
        pixels: fields of `mimbench.api.SegmentedPixels` by name.
    """
    entries: dict[str, np.ndarray] = {}
    for name, values in by_metric.items():
        if values.dtype == bool:
            entries[f"{_BITS}{name}"], entries[f"{_COUNT}{name}"] = np.packbits(values), np.array(len(values))
        else:
            entries[f"{_VALUES}{name}"] = values.astype(np.float32)
    entries |= {f"{_GROUPS}{name}": values.astype(np.int32) for name, values in groups.items()}
    if pixels is not None:
        entries |= {f"{_PIXELS}{name}": pixels[name].astype(np.uint32) for name in _COUNTS}
        entries[f"{_PIXELS}metrics"] = np.array(json.dumps(dict(pixels["metrics"])))
    for number, one in enumerate(detections):
        entries |= {f"{_DETECTIONS}{number}.{name}": array for name, array in _packed(one).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **entries)
    return buffer.getvalue()


def _packed(detections: Mapping[str, Any]) -> dict[str, np.ndarray]:
    bits = {name: np.packbits(detections[name], axis=0) for name in ("hits", "ignored")}
    return {
        "images": detections["images"].astype(np.int32),
        "classes": detections["classes"].astype(np.int16),
        "scores": detections["scores"].astype(np.float32),
        **bits,
        "objects": detections["objects"].astype(np.int16),
        "metrics": np.array(json.dumps({name: list(columns) for name, columns in detections["metrics"].items()})),
    }


def _unpacked(entries: Mapping[str, np.ndarray], prefix: str, metric: str) -> Detections:
    one = {name.removeprefix(prefix): array for name, array in entries.items() if name.startswith(prefix)}
    bits = {
        name: np.unpackbits(one[name], axis=0, count=len(one["images"])).astype(bool) for name in ("hits", "ignored")
    }
    thresholds = tuple(json.loads(str(one["metrics"]))[metric])
    return Detections(
        one["images"], one["classes"], one["scores"], **bits, objects=one["objects"], thresholds=thresholds
    )


def read_samples(record: Path, body: Mapping[str, Any], metric: str) -> Samples:
    """The value of a metric on each sample, [N] in the order of the task: bool, or float64 in the metric's unit.

    For a mean over groups: with the groups. For an average precision: the detections. For an mIoU: counts of pixels.

    Args:
        record: file of the record.
        body: its content.

    Raises:
        InputError: the record has none for this metric, or their file is missing or damaged.
    """
    name = f"the samples of record {record}"
    relative = body["artifacts"].get(SAMPLES)
    entries = {} if relative is None else _read(record, body, relative, name)
    if (values := _column(entries, metric)) is not None:
        groups = entries.get(f"{_GROUPS}{metric}")
        return values if groups is None else Grouped(values, groups.astype(np.int64))
    scores = json.loads(str(entries.get(f"{_PIXELS}metrics", "{}")))
    if metric in scores:
        hits, truth, predicted = (entries[f"{_PIXELS}{name}"].astype(np.float64) for name in _COUNTS)
        return Pixels(hits, truth, predicted, scores[metric])
    for entry, content in entries.items():
        is_list = entry.startswith(_DETECTIONS) and entry.endswith(".metrics")
        if is_list and metric in json.loads(str(content)):
            return _unpacked(entries, entry.removesuffix("metrics"), metric)
    raise InputError(
        f"record {record} has no values of {metric} on single samples: task {body['task']['name']!r} reports none, or "
        "the record was made before it did; run it again with --fresh, or use --interval seeds"
    )


def _column(entries: Mapping[str, np.ndarray], metric: str) -> np.ndarray | None:
    if (bits := entries.get(f"{_BITS}{metric}")) is not None:
        return np.unpackbits(bits, count=int(entries[f"{_COUNT}{metric}"])).astype(bool)
    values = entries.get(f"{_VALUES}{metric}")
    return None if values is None else values.astype(np.float64)


def _read(record: Path, body: Mapping[str, Any], relative: str, name: str) -> dict[str, np.ndarray]:
    try:
        path = find_artifact(results_folders(record.absolute()), relative)
    except OutsideError as error:
        raise InputError(f"{error}: {name}; see `mimbench verify`") from error
    if path is None:
        raise InputError(f"{relative}, {name}, is missing; copy `artifacts` with the records")
    remedy = "restore the file, or run the task again with --fresh"
    if problem := damage_of(path, body.get("artifacts_sha256", {}).get(SAMPLES)):
        raise InputError(f"{path}, {name}, {problem}; {remedy}")
    try:
        with np.load(path, allow_pickle=False) as content:
            return {entry: content[entry] for entry in content.files}
    except _UNREADABLE as error:
        raise InputError(f"{path}, {name}, is no file of samples; {remedy}") from error
