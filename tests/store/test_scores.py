"""Scores of single samples: as a task returns them, as a file of a record, and joined over records."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mimbench import join_scores, load_records, load_scores
from mimbench.contract import SampleScores
from mimbench.contract.scores import RESERVED
from mimbench.errors import InputError
from mimbench.files import file_sha256
from mimbench.store.reading import read_body
from mimbench.store.samples import read_samples
from mimbench.store.scores import pack_scores
from mimbench.store.sealing import write_sealed
from mimbench.store.verify import verify

IDS = np.array([0, 2, 1])


def scores(**columns) -> SampleScores:
    return SampleScores(IDS, columns or {"loss": np.array([0.5, 1.5, np.inf])}, torch.tensor([1, 0, 1]))


@pytest.fixture
def write(tmp_path):
    """Writes a record with scores and returns its file."""

    def written(seed: int, arrays: dict[str, np.ndarray] | None = None, *, split="test", content="c1") -> Path:
        name = f"mae-knn-s{seed}-0"
        artifact = tmp_path / "runs" / "artifacts" / name / "scores.npz"
        artifact.parent.mkdir(parents=True, exist_ok=True)
        artifact.write_bytes(pack_scores(scores().arrays() if arrays is None else arrays, split))
        body = {
            "schema": 1,
            "id": name,
            "method": {"name": "mae"},
            "task": {"name": "knn"},
            "dataset": {"name": "mnist5k", "version": content},
            "seed": seed,
            "artifacts": {"scores": f"artifacts/{name}/scores.npz"},
            "artifacts_sha256": {"scores": file_sha256(artifact)},
        }
        path = tmp_path / "runs" / "records" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        write_sealed(path, body)
        return path

    return written


def test_columns_are_stored_as_int64_and_float32():
    arrays = SampleScores(
        torch.tensor([3, 1]),
        {"member": torch.tensor([True, False]), "loss": torch.tensor([0.5, 1.0], dtype=torch.float64)},
        np.array([0, 1], dtype=np.uint8),
        {"background": torch.tensor([1, 0])},
    ).arrays()
    assert list(arrays) == ["id", "label", "attribute.background", "member", "loss"]
    assert [str(array.dtype) for array in arrays.values()] == ["int64", "int64", "int64", "int64", "float32"]
    assert arrays["member"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (scores(loss=np.array([0.5, 1.0])), r"loss is \[2\], and there are 3 ids"),
        (scores(loss=np.array([0.5, 1.0, np.nan])), "loss has NaN"),
        (scores(loss=[0.5, 1.0, 2.0]), "loss is list; use a tensor or an array"),
        (scores(name=np.array(["a", "b", "c"])), "name is <U1; use a tensor or an array of numbers"),
        (scores(label=IDS), "'label' is that of another column"),
        (scores(**{"top-1": IDS}), "'top-1' is not an identifier"),
        *((scores(**{name: IDS}), f"'{name}' is reserved") for name in RESERVED),
        (SampleScores(np.array([0, 0]), {}), "ids are empty, or one id occurs twice"),
        (SampleScores(np.array([0.0, 1.0]), {}), "id has real numbers"),
    ],
)
def test_scores_of_another_form_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong.arrays()


def test_scores_are_equal_if_their_columns_are():
    assert scores() == scores()
    assert scores() != scores(loss=np.array([0.5, 1.5, 2.0]))
    assert scores() != None  # noqa: E711
    assert SampleScores(IDS, {}) != SampleScores(IDS, {}, split="validation")


def test_equal_scores_give_equal_bytes():
    assert pack_scores(scores().arrays(), "test") == pack_scores(scores().arrays(), "test")


def test_a_file_of_fifty_thousand_images_takes_fourteen_bytes_each():
    rng = np.random.default_rng(0)
    n = 50_000
    columns = {
        "prediction": rng.integers(0, 1000, n),
        "confidence": rng.uniform(0, 1, n),
        "loss": rng.exponential(1, n),
    }
    arrays = SampleScores(np.arange(n), columns, np.repeat(np.arange(1000), 50)).arrays()
    assert len(pack_scores(arrays, "test")) < 14 * n


def test_scores_are_read_in_the_order_of_the_task(write):
    frame = load_scores(write(0))
    assert frame.id.tolist() == [0, 2, 1]
    assert frame.label.tolist() == [1, 0, 1]
    assert frame.loss.tolist() == [0.5, 1.5, np.inf]


def test_records_are_joined_on_the_ids(write):
    other = {"id": np.array([2, 1, 0]), "label": np.array([0, 1, 1]), "loss": np.array([3, 2, 1], dtype=np.float32)}
    frame = join_scores([write(0), write(1, other)])
    assert frame.columns.tolist() == ["record", "method", "seed", "id", "label", "loss"]
    table = frame.pivot(index="id", columns="seed", values="loss")
    assert table.loc[2].tolist() == [1.5, 3.0]
    assert table.loc[0].tolist() == [0.5, 1.0]
    assert table.loc[1].tolist() == [np.inf, 2.0]


def test_only_columns_of_all_records_are_joined(write):
    more = {**scores().arrays(), "confidence": np.ones(3, dtype=np.float32)}
    assert "confidence" not in join_scores([write(0), write(1, more)])


def test_records_on_other_samples_are_not_joined(write):
    first, fewer = write(0), {"id": np.array([0, 5])}
    for path, words in (
        (write(1, fewer), "2 samples are in the first only, 1 in the second only"),
        (write(2, split="validation"), "one is of the test split, the other of the validation split"),
        (write(3, content="c2"), "their datasets have the fingerprints c1 and c2"),
    ):
        with pytest.raises(InputError, match=words):
            join_scores([first, path])
    with pytest.raises(InputError, match="mae-knn-s0-0 is listed twice"):
        join_scores([first, first])
    with pytest.raises(InputError, match="no records to join"):
        join_scores([])


def test_damage_and_absence_are_one_line(write, tmp_path):
    path = write(0)
    artifact = tmp_path / "runs" / read_body(path)["artifacts"]["scores"]
    artifact.write_bytes(artifact.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"does not have the sha256 in the record.*run the task again with --fresh"):
        load_scores(path)
    artifact.unlink()
    with pytest.raises(InputError, match="is missing; copy `artifacts` with the records"):
        load_scores(path)
    body = json.loads(path.read_text())
    del body["sha256"]
    write_sealed(path, {**body, "artifacts": {}})
    with pytest.raises(InputError, match="has no scores of single samples: task 'knn' reports none"):
        load_scores(path)
    write_sealed(path, {**body, "artifacts": {"scores": "../../secret.npz"}})
    with pytest.raises(InputError, match="leads out of the results folder"):
        load_scores(path)


def test_a_file_of_another_kind_is_one_line(write, tmp_path):
    path = write(0)
    body = read_body(path)
    artifact = tmp_path / "runs" / body["artifacts"]["scores"]
    artifact.write_bytes(b"nothing")
    write_sealed(path, {**body, "artifacts_sha256": {"scores": file_sha256(artifact)}})
    with pytest.raises(InputError, match="is no file of scores"):
        load_scores(path)


@pytest.mark.parametrize("task", ["linear-probe", "knn", "few-shot", "finetune"])
def test_classification_tasks_keep_scores_that_agree_with_their_metrics(quick, tmp_path, task):
    small = ("data.train_limit=64", "data.test_limit=20")
    options = [option for setting in small for option in ("--set", setting)]
    done = quick("run", "--method", "random-init", "--task", task, "--recipe", "smoke", *options)
    assert done.returncode == 0, done.stderr
    records = load_records(tmp_path / "runs")
    primary = records[records.primary].iloc[0]
    frame = load_scores(primary.file)
    assert frame.id.tolist() == list(range(20))
    hits = frame.hits_5shot if task == "few-shot" else frame.prediction == frame.label
    assert 100 * hits.mean() == pytest.approx(primary.value, abs=1e-4)
    body = read_body(Path(primary.file))
    for metric, measured in body["metrics"].items():
        if metric != "ece":  # it is no mean over images
            values = read_samples(Path(primary.file), body, metric)
            mean = values.mean() * (100 if values.dtype == bool else 1)
            assert mean == pytest.approx(measured["value"], abs=1e-4), metric
    if "loss" in frame:
        right = frame[frame.prediction == frame.label]
        assert np.exp(-right.loss.to_numpy()) == pytest.approx(right.confidence.to_numpy(), rel=1e-4)
    assert verify(tmp_path / "runs").damage == []
    (file,) = tmp_path.glob("runs/artifacts/*/scores.npz")
    file.write_bytes(b"x" + file.read_bytes())
    (line,) = verify(tmp_path / "runs").damage
    assert "scores" in line
    assert "does not have the sha256 in the record" in line


def test_the_parameters_of_numpy_and_the_columns_of_a_join_are_reserved(write):
    parameters = {name for name in inspect.signature(np.savez_compressed).parameters if name not in ("args", "kwds")}
    assert parameters <= set(RESERVED)
    joined, plain = join_scores([write(0)]).columns, load_scores(write(0)).columns
    assert set(joined) - set(plain) <= set(RESERVED)
