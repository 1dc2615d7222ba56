"""Every installed task, method and encoder on the embedded default, in as few commands as possible."""

from __future__ import annotations

import json

import pytest
import torch

from mimbench import registry
from mimbench.errors import InputError
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.plan import plan

BRIEF = ("--set", "pretrain.epochs=1", "--set", "pretrain.schedule.warmup_epochs=0", "--set", "data.train_limit=128")


CLIPS = ("data.train_clips=64", "data.test_clips=32", "pretrain.epochs=1", "pretrain.schedule.warmup_epochs=0")


def needs_clips(method: str) -> bool:
    return "clips" in registry.methods.load(method).encoder_needs


def takes_images(task: str) -> bool:
    return registry.tasks.load(task).takes_images


def recorded(quick, *arguments: str) -> list[dict]:
    done = quick("run", "--recipe", "smoke", "--json", *BRIEF, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.e2e
def test_every_task_runs_and_reports_what_it_declares(quick):
    names = [*filter(takes_images, registry.tasks.names())]
    records = recorded(quick, "--method", "simmim", "--task", ",".join(names))
    assert sorted(record["task"]["name"] for record in records) == sorted(names)
    assert len({record["checkpoint"]["weights_sha256"] for record in records}) == 1
    for record in records:
        declared = {metric.name: metric for metric in registry.tasks.load(record["task"]["name"]).metrics}
        metrics = record["metrics"]
        assert next(iter(declared)) in metrics
        assert set(declared) == {*metrics, *record["details"].get("absent", {})}, record["task"]
        for name, measured in metrics.items():
            assert declared[name].low <= measured["value"] <= declared[name].high, (record["task"], name)
            assert (measured["unit"], measured["n"] > 0) == (declared[name].unit, True)


@pytest.mark.parametrize("task", registry.tasks.names())
def test_every_task_states_chance_on_its_embedded_default(task, cache):
    method, recipe = ("simmim", "smoke") if takes_images(task) else ("videomae", "moving-digits-vit-tiny")
    (cell,) = plan(Request([method], [task], recipe), torch.device("cpu"), cache)
    primary = cell.task.metrics[0]
    assert primary.low <= cell.task.chance(cell.dataset) <= primary.high


@pytest.mark.e2e
def test_every_method_can_be_probed(quick):
    loaded = {name: registry.methods.load(name) for name in registry.methods.names()}
    names = [name for name, method in loaded.items() if not (method.needs_checkpoint or needs_clips(name))]
    records = recorded(quick, "--method", ",".join(names), "--task", "linear-probe")
    assert sorted(record["method"]["name"] for record in records) == sorted(names)
    assert all(0 <= record["metrics"]["top1"]["value"] <= 100 for record in records)


@pytest.mark.e2e
def test_every_method_of_clips_can_be_probed_and_fine_tuned(quick):
    names = [*filter(needs_clips, registry.methods.names()), "random-init", "supervised"]
    of_clips = [name for name in registry.tasks.names() if not takes_images(name)]
    trained = ("finetune", *of_clips)
    brief = [*CLIPS, *(f"tasks.{name}.train.epochs=1" for name in trained)]
    brief += [f"tasks.{name}.train.schedule.warmup_epochs=0" for name in trained]
    brief += [f"tasks.{name}.train.batch_size=16" for name in trained]
    settings = [word for setting in brief for word in ("--set", setting)]
    tasks = ("linear-probe", "knn", "few-shot", "finetune", *of_clips)
    chosen = ("--method", ",".join(names), "--task", ",".join(tasks))  # the default recipe is that of clips
    done = quick("run", "--json", *chosen, *settings)
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert len(records) == len(names) * len(tasks)
    assert {record["dataset"]["name"] for record in records} == {"moving-digits"}
    for record in records:
        declared = {metric.name for metric in registry.tasks.load(record["task"]["name"]).metrics}
        assert declared == {*record["metrics"], *record["details"].get("absent", {})}


@pytest.mark.e2e
def test_simmim_pretrains_every_kind_of_encoder(quick):
    names = [name for name in registry.encoders.names() if name not in ("timm", "video-vit", "frame-vit")]
    assert {"vit", "swin", "convnext", "resnet"} <= set(names)
    records = recorded(quick, "--method", "simmim", "--task", "knn", "--vary", f"encoder.name={','.join(names)}")
    assert [record["recipe"]["encoder"]["name"] for record in records] == names
    assert len({record["checkpoint"]["fingerprint"] for record in records}) == len(names)


TIMM_VIT = ("encoder.name=timm", "encoder.model=test_vit", "encoder.arguments={patch_size=4,depth=2}")


@pytest.mark.e2e
def test_a_model_of_timm_serves_methods_and_tasks(quick):
    settings = [argument for setting in TIMM_VIT for argument in ("--set", setting)]
    methods = ("random-init", "mae", "simmim", "beit")
    records = recorded(quick, "--method", ",".join(methods), "--task", "knn", *settings)
    assert [record["method"]["name"] for record in records] == list(methods)
    for record in records:
        assert record["recipe"]["encoder"]["model"] == "test_vit"
        assert "timm" in record["provenance"]["packages"]
    whole = ("--set", "tasks.segmentation.window=0")  # timm's ViT attends globally
    tuned = recorded(quick, "--method", "mae", "--task", "finetune,segmentation", *settings, *whole)
    assert {record["checkpoint"]["fingerprint"] for record in tuned} == {records[1]["checkpoint"]["fingerprint"]}


def test_a_model_of_timm_that_cannot_serve_a_method_is_refused(cache):
    settings = {"encoder.name": "timm", "encoder.model": "test_resnet", "input.image_size": 32}
    with pytest.raises(InputError, match=r"method 'mae' \(.*\) needs an encoder that can drop masked patches; timm"):
        plan(Request(["mae"], ["knn"], "smoke", settings=settings), torch.device("cpu"), cache)
