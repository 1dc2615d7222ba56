"""Which test samples of a run are on its page, in which order."""

from __future__ import annotations

import numpy as np
import pytest

from mimbench.report.page.worst_samples import MOST, describe_worst_samples
from mimbench.store.samples import pack_samples
from mimbench.store.scores import pack_scores


@pytest.fixture
def described(tmp_path):
    """The table of a record with one file, as {key: values} and the number of samples."""

    def describe(artifact: str, content: bytes, metric: str = "top1", higher: bool = True):
        path = tmp_path / "runs" / "artifacts" / "one.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        body = {
            "task": {"name": "some-task"},
            "artifacts": {artifact: "artifacts/one.npz"},
            "metrics": {metric: {"value": 1.0, "unit": "percent", "n": 4, "higher_is_better": higher}},
        }
        table = describe_worst_samples(tmp_path / "runs" / "records" / "one.json", body)
        return {key: values for (key, _), values in zip(table["columns"], table["values"], strict=True)}, table["of"]

    return describe


def test_classified_samples_are_in_the_order_of_their_loss(described):
    columns = {
        "id": np.array([5, 6, 7]),
        "label": np.array([0, 1, 2]),
        "prediction": np.array([0, 0, 2]),
        "loss": np.array([0.12345, np.inf, 0.5], dtype=np.float32),
    }
    table, count = described("scores", pack_scores(columns, "test"))
    assert count == 3
    assert table == {"id": [6, 7, 5], "label": [1, 2, 0], "prediction": [0, 2, 0], "loss": [None, 0.5, 0.123]}


def test_without_a_loss_the_surest_errors_come_first(described):
    columns = {
        "id": np.arange(4),
        "label": np.array([0, 0, 0, 0]),
        "prediction": np.array([0, 1, 2, 0]),
        "confidence": np.array([0.9, 0.5, 0.8, 0.4], dtype=np.float32),
    }
    assert described("scores", pack_scores(columns, "test"))[0]["id"] == [2, 1, 3, 0]


def test_samples_with_a_value_alone_are_ordered_by_it(described):
    hits = np.array([0.5, 0.1, 1.0], dtype=np.float32)
    content = pack_scores({"id": np.arange(3), "label": np.zeros(3, dtype=int), "hits_5shot": hits}, "test")
    assert described("scores", content)[0]["id"] == [1, 0, 2]
    errors = pack_samples({"rmse": np.array([0.5, 0.1, 1.0])})
    assert described("samples", errors, "rmse", higher=False)[0]["id"] == [2, 0, 1]
    many = pack_samples({"top1": np.arange(3 * MOST) % 3 > 0})
    table, count = described("samples", many)
    assert (table["id"], count) == ([3 * place for place in range(MOST)], 3 * MOST)


def test_an_image_has_the_precision_of_its_own_detections(described):
    """Both of two objects found is 100; one after a false one has precision 1/2 up to recall 1/2, 51 of 101 levels."""
    one = {
        "images": np.array([0, 0, 1, 1]),
        "classes": np.zeros(4, dtype=int),
        "scores": np.array([0.9, 0.8, 0.9, 0.4]),
        "hits": np.array([[True], [True], [False], [True]]),
        "ignored": np.zeros((4, 1), dtype=bool),
        "objects": np.array([[2], [2], [2], [0]]),
        "metrics": {"AP": (0,)},
    }
    table, count = described("samples", pack_samples({}, [one]), "AP")
    assert count == 3  # the image without objects has no precision
    assert table == {
        "id": [2, 1, 0],
        "objects": [2, 2, 2],
        "missed": [2, 2, 0],  # a hit of score 0.4 does not count
        "false": [0, 1, 0],
        "value": [0.0, float(f"{100 * 0.5 * 51 / 101:.3g}"), 100.0],
    }


def test_an_image_has_the_iou_of_its_own_pixels(described):
    pixels = {
        "hits": np.array([[4, 0], [2, 2]]),
        "truth": np.array([[4, 4], [4, 4]]),
        "predicted": np.array([[8, 0], [4, 4]]),
        "metrics": {"mIoU": "iou"},
    }
    table, _ = described("samples", pack_samples({}, pixels=pixels), "mIoU")
    assert table == {"id": [0, 1], "value": [25.0, float(f"{100 / 3:.3g}")]}


def test_a_damaged_file_is_named_without_folders(tmp_path):
    body = {"task": {"name": "knn"}, "artifacts": {"scores": "artifacts/none.npz"}, "metrics": {}}
    problem = describe_worst_samples(tmp_path / "runs" / "records" / "one.json", body)["problem"]
    assert str(tmp_path) not in problem
    assert "verify" in problem
    assert describe_worst_samples(tmp_path / "one.json", body | {"artifacts": {}}) is None
