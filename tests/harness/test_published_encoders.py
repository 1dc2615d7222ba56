"""`--checkpoint timm:MODEL` and `hf:REPO`: a published encoder as a checkpoint, its records, and its row."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from helpers.hub_cache import REVISION, put_in_cache, small_model, use_offline_cache
from mimbench.errors import InputError
from mimbench.files import file_sha256
from mimbench.harness import published_encoders
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.plan import plan
from mimbench.harness.published_encoders import open_checkpoint
from mimbench.harness.run import RunOptions, execute, preview
from mimbench.report.records.frame import load_records
from mimbench.store.record import read_records

VIT = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 32, "reg_tokens": 2}
NAME = "hf:lab/model"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    hub = use_offline_cache(monkeypatch, tmp_path / "hub")
    state, config = small_model("vit_tiny_patch16_224", **VIT)
    return put_in_cache(hub, "lab/model", {"config.json": config, "model.safetensors": state}) / "model.safetensors"


def options(results, **changes) -> RunOptions:
    values = {"tasks": ["knn", "few-shot"], "recipe": "smoke", "checkpoint": NAME, "device": "cpu", "results": results}
    return RunOptions(**values | changes)


def test_tasks_run_on_a_published_encoder_and_the_record_says_which(weights, tmp_path):
    results = tmp_path / "results"
    assert preview(options(results)).summary.cells
    assert not results.exists()  # a dry run stores nothing
    assert not execute(options(results)).failures
    assert not execute(options(results, tasks=["knn"], settings={"task.pooling": "mean"})).failures
    (checkpoint,) = (results / "checkpoints").iterdir()
    records = {(record.task.name, record.protocol["pooling"]): record for record in read_records(results)}
    assert set(records) == {("knn", "token"), ("few-shot", "token"), ("knn", "mean")}  # as the model, or as asked
    checkpoint_input = {
        "image_size": 32,
        "eval_resize": 35,
        "eval_interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    for record in records.values():
        assert record.method.name == "external"
        assert record.recipe["imported"] == {
            "source": NAME,
            "sha256": file_sha256(weights),
            "revision": REVISION,
            "pooling": "token",
            "input": checkpoint_input,
        }
        assert (record.recipe["encoder"]["model"], record.recipe["input"]["mean"]) == (
            "vit_tiny_patch16_224",
            [0.5] * 3,
        )
        assert record.checkpoint.fingerprint == checkpoint.name
        assert "pretrain" not in record.recipe
    frame = load_records(results)
    assert set(frame["method"]) == {NAME}
    assert frame["recipe_json"].isna().all()
    again = open_checkpoint(NAME, results, tmp_path / "scratch")
    assert again.folder == checkpoint
    assert again.card["what"]["imported"]["pooling"] == "token"
    assert not (tmp_path / "scratch").exists()


CHANGES = [{"mean": [0.1] * 3}, {"std": [0.2] * 3}, {"crop_pct": 0.5}, {"interpolation": "bilinear"}]


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_weights_with_another_input_are_another_checkpoint(weights, tmp_path, change):
    first = open_checkpoint(NAME, tmp_path, tmp_path / "one").card
    path = weights.parent / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] |= change
    path.write_text(json.dumps(config))
    second = open_checkpoint(NAME, tmp_path, tmp_path / "two").card
    assert first["what"]["imported"]["sha256"] == second["what"]["imported"]["sha256"]
    assert first["fingerprint"] != second["fingerprint"]


def test_the_same_weights_with_another_pooling_are_another_checkpoint(weights, tmp_path, monkeypatch):
    first = open_checkpoint(NAME, tmp_path, tmp_path / "one")
    load = published_encoders.load_published
    monkeypatch.setattr(published_encoders, "load_published", lambda which: replace(load(which), pooling="mean"))
    second = open_checkpoint(NAME, tmp_path, tmp_path / "two")
    assert first.card["fingerprint"] != second.card["fingerprint"]


@pytest.mark.parametrize("settings", [{"task.k": 0}, {"data.name": "nothing"}])
def test_a_refused_run_stores_nothing(weights, tmp_path, settings):
    results = tmp_path / "results"
    with pytest.raises(InputError):
        execute(options(results, tasks=["knn"], settings=settings))

    def refuse(cells):
        raise InputError("refused")

    with pytest.raises(InputError, match="refused"):
        execute(options(results, tasks=["knn"]), refuse)
    assert not results.exists()


def test_a_recipe_or_protocol_that_says_how_to_pool_wins(weights, tmp_path, cache):
    import torch

    checkpoint = open_checkpoint(NAME, tmp_path / "results", tmp_path)

    def pooling(task: str, **settings: str) -> str:
        request = Request(["external"], [task], "smoke", settings=settings, checkpoint=checkpoint)
        (cell,) = plan(request, torch.device("cpu"), cache)
        return cell.task.config.pooling

    assert pooling("linear-probe") == "token"
    assert pooling("linear-probe", **{"task.protocol": "cached-lbfgs"}) == "mean"
    assert pooling("knn", **{"tasks.knn.pooling": "mean"}) == "mean"


def test_the_method_of_published_encoders_runs_with_a_checkpoint_only(tmp_path, cache):
    import torch

    with pytest.raises(InputError, match=r"^method 'external' stands for weights from elsewhere; name them with --che"):
        plan(Request(["external"], ["knn"], "smoke"), torch.device("cpu"), cache)
