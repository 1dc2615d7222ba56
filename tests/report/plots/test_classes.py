"""Scores by class, confusion matrices and precision over recall are those of the records."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import plot_records as made
from mimbench.report.plots.kinds import figure
from mimbench.report.plots.source import NothingToPlot, Source
from mimbench.store.record import write_record
from mimbench.store.scores import pack_scores


def test_a_class_is_at_its_mean_over_seeds(record):
    tables = [{"boxes": {"cat": {"AP": 40.0 + seed, "n": 3}, "dog": {"AP": 10.0, "n": 4}}} for seed in (0, 2)]
    records = [
        made.one(record, "mae", seed, "detection", metrics={"AP": 30.0}, details={"per_class": table})
        for seed, table in enumerate(tables)
    ]
    (axes,) = figure("classes", Source.from_records(records)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    (line,) = axes.lines
    assert list(line.get_xdata()) == [41.0, 10.0]


def test_confusion_is_counted_over_the_samples_of_all_seeds(record, tmp_path):
    folder = tmp_path / "runs"
    for seed, predictions in enumerate(([0, 0, 1, 1], [0, 1, 1, 1])):
        path = f"artifacts/mae-{seed}/scores.npz"
        one = made.one(record, "mae", seed, artifacts={"scores": path})
        (folder / "records").mkdir(parents=True, exist_ok=True)
        write_record(folder / "records" / f"{one.id}.json", one)
        columns = {"id": np.arange(4), "label": np.array([0, 0, 1, 1]), "prediction": np.array(predictions)}
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(pack_scores(columns, "test"))
    (axes,) = figure("confusion", Source.read(folder)).axes
    assert axes.images[0].get_array().tolist() == [[75.0, 25.0], [0.0, 100.0]]
    for path in folder.rglob("*.npz"):
        path.unlink()
    with pytest.raises(NothingToPlot, match="scores of single samples"):
        figure("confusion", Source.read(folder))


def test_precision_is_drawn_at_its_recalls(record):
    curve = [100.0, 80.0, 60.0, 40.0, 0.0]
    one = made.one(record, "mae", 0, "detection", metrics={"AP": 30.0}, curves={"precision_by_recall": curve})
    (axes,) = figure("precision-recall", Source.from_records([one])).axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert list(line.get_ydata()) == curve
