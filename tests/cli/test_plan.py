"""`mimbench plan`: what a run needs, before anything is paid for."""

from __future__ import annotations

import json

import pytest

from helpers.refusals import refused
from mimbench.harness.forecast.gpus import GIB

SHALLOW = ("--set", "encoder.depth=2", "--set", "method.decoder_depth=1")
OFFICIAL = ("plan", "--method", "mae", "--recipe", "imagenet-vit-base", *SHALLOW, "--gpus", "8xH100", "--memory", "6GB")
STEPPING = """
import torch
from torch import nn
from mimbench.api import Measured, Metric, PlannedStep, StepOutput, Task, TaskConfig, TaskResult, TrainConfig


class Head(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.out_dim, 7)

    def training_step(self, batch, generator):
        return StepOutput(self.head(self.encoder.features(batch[0], -1).pooled).square().mean())


class Plain(Task):
    name, version = "plain", "1"
    trains_encoder = True
    metrics = (Metric("score", "percent", 0.0, 100.0),)

    def run(self, encoder, dataset, context):
        raise NotImplementedError

    def chance(self, dataset):
        return 0.0


class Stepping(Plain):
    name = "stepping"

    def planned_step(self, encoder, data, images):
        shape = encoder.input_shape
        return PlannedStep(
            Head(encoder), lambda count: (torch.zeros(count, *shape),), TrainConfig(epochs=3, batch_size=64, base_lr=1)
        )
"""


def stages_of(done):
    assert done.returncode == 0, done.stderr
    (plan,) = json.loads(done.stdout)
    return plan, {stage["name"]: stage for stage in plan["stages"]}


def test_an_official_recipe_is_planned_without_its_data(quick):
    """ViT-B/16 and MAE's decoder, of fewer blocks, which saves seconds; arXiv:2111.06377 pretrains 800 epochs.

    With all blocks 111.6 M parameters are trained in 58.5 GFLOPs per image. The encoder processes 50 of 197 tokens.
    """
    plan, stages = stages_of(quick(*OFFICIAL, "--task", "knn", "--json"))
    pretrain, knn = stages["pretrain"], stages["knn"]
    assert plan["data"]["imagenet"]["train"] == 1_281_167
    left_out = 10 * block_weights(768) + 7 * block_weights(512)
    assert pretrain["trained"] == pytest.approx(111.6e6 - left_out, rel=0.005)
    assert pretrain["images"] == 800 * (1_281_167 // 4096) * 4096
    left_out = 10 * block_flops(768, tokens=50) + 7 * block_flops(512, tokens=197)
    assert pretrain["flops"] == pytest.approx(58.5e9 - left_out, rel=0.01)
    assert 4 * GIB < pretrain["memory"]["total"] < 8 * GIB
    assert (pretrain["fits"], pretrain["memory"]["images"], pretrain["largest"]["images"]) == (False, 512, 256)
    assert pretrain["largest"]["total"] < plan["machine"]["usable_bytes"] < 5 * GIB
    assert pretrain["memory"]["states"] == pytest.approx(8 * pretrain["trained"], rel=0.01)
    seconds = pretrain["flops"] * pretrain["images"] / (8 * 0.3 * 989e12)
    assert pretrain["seconds"] == pytest.approx(seconds)
    assert knn["images"] == 1_331_167
    assert knn["disk"] == 1_331_167 * 768 * 4
    assert (knn["trained"], knn["largest"]) == (0, None)


def block_weights(width):
    return 12 * width**2 + 13 * width


def block_flops(width, tokens):
    """Of one image, forward and backward."""
    return 3 * tokens * (24 * width**2 + 4 * tokens * width)


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "stepping.py").write_text(STEPPING)
    return ("--plugin", "stepping.py", "--recipe", "smoke", "--method", "simmim")


def test_a_task_of_a_plugin_shows_its_step_or_is_not_known(quick, plugin):
    _, stages = stages_of(quick("plan", *plugin, "--task", "stepping,plain", "--json"))
    stepping, plain = stages["stepping"], stages["plain"]
    assert stepping["images"] == 3 * (200 // 64) * 64
    assert stepping["memory"]["images"] == 64
    assert plain["memory"] is None
    assert plain["notes"] == ["plain: memory and time are not known: the task has no planned_step"]
    assert plain["frozen"] > 10_000


def test_steps_are_measured_here(quick):
    _, stages = stages_of(quick("plan", "--method", "mae", "--recipe", "smoke", "--measure", "0.1", "--json"))
    assert 0 < stages["pretrain"]["seconds"] < 600


def test_what_a_method_fits_first_is_a_stage(quick):
    _, stages = stages_of(
        quick("plan", "--method", "beit", "--recipe", "smoke", "--set", "method.tokenizer=dvae", "--json")
    )
    assert list(stages) == ["discrete VAE", "pretrain"]
    assert stages["discrete VAE"]["options"] == "method.dvae"
    done = quick("plan", "--method", "beit", "--recipe", "smoke", "--set", "method.tokenizer=kmeans")
    assert "beit: what it fits before its training is not planned whole" in done.stdout
    assert "time is not known: name a card with --gpus" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "8xH10"], "unknown card 'H10'; did you mean"),
        (["--gpus", "3xH100"], "pretrain.batch_size 64 cannot be shared equally by 3 processes"),
        (["--memory", "80GB"], "--memory is of a card that --gpus names"),
        (["--gpus", "1xH100", "--measure", "1"], "leave one of them out"),
        (["--set", "data.name=folder"], "or plan without it: give --images N (of an epoch) and --classes N"),
        (["--images", "100"], "those of mnist5k are known: leave them out"),
        (["--task", "detecton"], "did you mean 'detection'"),
        (["--set", "encoder.embed_dim=1000000000"], "the sizes in [encoder]"),
    ],
)
def test_bad_input_is_one_line(quick, arguments, message):
    done = quick("plan", "--method", "simmim", "--recipe", "smoke", *arguments)
    refused(done, message)


def test_numbers_of_an_absent_dataset_are_given(quick):
    arguments = ("--set", "data.name=folder", "--images", "6400", "--classes", "7")
    plan, stages = stages_of(quick("plan", "--method", "mae", "--recipe", "smoke", *arguments, "--json"))
    assert plan["data"]["folder"]["classes"] == 7
    assert stages["pretrain"]["images"] % 6400 == 0
