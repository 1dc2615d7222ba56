"""The test samples that a run is worst at, from the files that its task left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimbench.errors import InputError
from mimbench.report.scores.average_precision import ResampledPrecision
from mimbench.report.scores.names import NAMES
from mimbench.report.scores.pixel_scores import ResampledPixels
from mimbench.store.samples import SAMPLES, Detections, Grouped, Pixels, read_samples
from mimbench.store.scores import SCORES, read_scores

MOST = 100
"""Samples per run on the page; the files have all of them."""
_SURE = 0.5
"""Score from which a detection without an object counts as a false one."""
_DIGITS = 3
"""Significant digits of real values."""


@dataclass(frozen=True)
class _Column:
    key: str
    title: str
    values: np.ndarray
    """[N], of all samples: whole numbers or real ones."""

    def chosen(self, places: np.ndarray) -> list[int] | list[float | None]:
        """Plain values; None for infinity, as of the loss of a class that was ruled out."""
        values = self.values[places]
        if values.dtype.kind in "iu":
            return [int(value) for value in values]
        return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in values]


def describe_worst_samples(file: Path, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """A table of the samples of a run, worst first, as plain data; None if the task left no values of single samples.

    Of classified samples with their prediction: all that is known of each, in the order of their loss, or wrong ones
    first if there is none. Of others: the value of the primary metric on each, such as the AP of each image.

    Args:
        file: of the record.
        body: its content.

    Returns:
        "of" (number of samples), "columns" ([key, title] each; the first is the position in the split) and "values" (a
        list per column, of `MOST` samples at most); or "problem", why they are not shown.
    """
    artifacts = body["artifacts"]
    try:
        if SCORES in artifacts:
            return _table(*_of_scores(read_scores(file, body)[1], body))
        if SAMPLES in artifacts:
            return _table(*_of_metric(file, body))
    except InputError:  # its text names folders of this machine
        return {"problem": "the file is missing or damaged; `mimbench verify` says which"}
    return None


def _table(columns: Sequence[_Column], order: np.ndarray) -> dict[str, Any]:
    """order: positions of the samples, worst first."""
    places = order[:MOST]
    return {
        "of": len(order),
        "columns": [[column.key, column.title] for column in columns],
        "values": [column.chosen(places) for column in columns],
    }


def _of_scores(scores: Mapping[str, np.ndarray], body: Mapping[str, Any]) -> tuple[list[_Column], np.ndarray]:
    columns = [_Column(name, _title(name), values) for name, values in scores.items()]
    if "loss" in scores:
        return columns, np.argsort(-scores["loss"], kind="stable")
    if "prediction" in scores and "label" in scores:
        is_right = scores["prediction"] == scores["label"]
        sure = scores.get("confidence", np.zeros(len(is_right)))
        return columns, np.lexsort((np.where(is_right, sure, -sure), is_right))
    measured = next((values for values in scores.values() if values.dtype.kind == "f"), scores["id"])
    return columns, np.argsort(measured if _is_higher_better(body) else -measured, kind="stable")


def _title(name: str) -> str:
    return "sample" if name == "id" else name.removeprefix("attribute.").replace("_", " ")


def _is_higher_better(body: Mapping[str, Any]) -> bool:
    return next(iter(body["metrics"].values())).get("higher_is_better", True)


def _of_metric(file: Path, body: Mapping[str, Any]) -> tuple[list[_Column], np.ndarray]:
    metric = next(iter(body["metrics"]))
    samples = read_samples(file, body, metric)
    if isinstance(samples, Detections):
        values, others = _of_detections(samples)
    elif isinstance(samples, Pixels):
        values, others = _of_pixels(samples), []
    elif isinstance(samples, Grouped):
        values, others = samples.values.astype(np.float64), [_Column("group", "group", samples.groups)]
    else:
        values, others = samples.astype(np.float64), []
    places = np.flatnonzero(~np.isnan(values))  # an image without objects has no AP
    order = places[np.argsort(values[places] if _is_higher_better(body) else -values[places], kind="stable")]
    ids = _Column("id", "sample", np.arange(len(values)))
    return [ids, *others, _Column("value", NAMES.metric(body["task"]["name"], metric), values)], order


def _of_detections(one: Detections) -> tuple[np.ndarray, list[_Column]]:
    """The average precision of each image by itself, in percent; its objects, those missed, and false detections."""
    count, loosest = len(one.objects), one.thresholds[0]
    ends = np.searchsorted(one.images, np.arange(count + 1))  # detections are in the order of the images
    values = np.array([_precision_of(one, image, slice(*ends[image : image + 2])) for image in range(count)])
    objects = one.objects.sum(axis=1).astype(np.int64)
    sure = one.scores >= _SURE
    hits = np.bincount(one.images[sure & one.hits[:, loosest] & ~one.ignored[:, loosest]], minlength=count)
    false = np.bincount(one.images[sure & ~one.hits[:, loosest] & ~one.ignored[:, loosest]], minlength=count)
    columns = [
        _Column("objects", "objects", objects),
        _Column("missed", f"missed, score ≥ {_SURE:g}", np.maximum(objects - hits, 0)),
        _Column("false", f"false, score ≥ {_SURE:g}", false),
    ]
    return values, columns


def _precision_of(one: Detections, image: int, chosen: slice) -> float:
    """chosen: the detections on the image."""
    classes = one.classes[chosen]
    alone = Detections(
        np.zeros(len(classes), dtype=np.int64),
        classes,
        one.scores[chosen],
        one.hits[chosen],
        one.ignored[chosen],
        one.objects[image : image + 1],
        one.thresholds,
    )
    return ResampledPrecision(alone, one.thresholds)(np.ones(1))


def _of_pixels(one: Pixels) -> np.ndarray:
    """The score of each image by itself, in percent."""
    whole = ResampledPixels(one)
    return np.array([whole(weights) for weights in np.eye(len(one.truth))])
