"""`--checkpoint timm:MODEL` and `hf:REPO`: a published encoder as a checkpoint, its records, and its row."""

from __future__ import annotations

import pytest

from helpers.hub_cache import REVISION, put_in_cache, small_model, use_offline_cache
from mimbench.errors import InputError
from mimbench.files import file_sha256
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
    for record in records.values():
        assert record.method.name == "external"
        assert record.recipe["imported"] == {
            "source": NAME,
            "sha256": file_sha256(weights),
            "revision": REVISION,
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
    assert open_checkpoint(checkpoint.name, results).card["imported"]["pooling"] == "token"


def test_a_recipe_or_protocol_that_says_how_to_pool_wins(weights, tmp_path, cache):
    import torch

    checkpoint = open_checkpoint(NAME, tmp_path / "results")

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
