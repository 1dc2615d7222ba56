"""Clips as plugins: a dataset, an encoder and a method of video pretrain and are measured as those of images are."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from plugins.cube_vit import CubeViT
from plugins.moving_squares import FRAMES, SIZE, MovingSquares
from plugins.tube_mae import TubeMAE

from helpers.refusals import refused
from mimbench.contract import InputConfig
from mimbench.testing import dataset_suite, encoder_suite, method_suite, parametrize_checks

CLIPS = InputConfig(image_size=SIZE, frames=FRAMES, mean=(0.5,), std=(0.5,))


@parametrize_checks(dataset_suite(MovingSquares))
def test_moving_squares_passes_the_checks_for_datasets(check):
    check()


@parametrize_checks(dataset_suite(MovingSquares, {"length": 12}))
def test_longer_videos_pass_the_checks_for_datasets(check):
    check()


@parametrize_checks(encoder_suite(CubeViT, image_size=SIZE, channels=1, frames=FRAMES))
def test_the_encoder_passes_the_checks_for_encoders(check):
    check()


@parametrize_checks(encoder_suite(CubeViT, {"tubelet": 1}, image_size=SIZE, channels=1))
def test_the_encoder_passes_the_checks_with_images_too(check):
    check()


@parametrize_checks(method_suite(TubeMAE, encoder=CubeViT, input_config=CLIPS))
def test_tube_mae_passes_the_checks_for_methods(check):
    check()


def run(methods, tasks, *settings):
    options = [
        "data.name=moving-squares",
        "encoder.name=cube-vit",
        f"input.frames={FRAMES}",
        f"input.image_size={SIZE}",
        "pretrain.schedule.warmup_epochs=0",
    ]
    chosen = [word for setting in (*options, *settings) for word in ("--set", setting)]
    return ["run", "--recipe", "smoke", "--method", methods, "--task", tasks, *chosen]


@pytest.mark.usefixtures("registered")
def test_clips_are_pretrained_on_and_probed(quick, tmp_path):
    done = quick(*run("tube-mae,random-init", "linear-probe,knn,few-shot", "pretrain.epochs=4"), "--json")
    assert done.returncode == 0, done.stderr
    assert "no picture" not in done.stderr
    records = {(one["method"]["name"], one["task"]["name"]): one for one in json.loads(done.stdout)}
    assert len(records) == 6
    probe = records["tube-mae", "linear-probe"]
    assert probe["metrics"]["top1"]["value"] > 40  # chance is 25
    assert probe["protocol"]["input"]["frames"] == FRAMES
    with Image.open(tmp_path / "runs" / probe["artifacts"]["reconstruction"]) as picture:
        assert picture.width > FRAMES * 96


TRAINED = ("tasks.linear-probe.probe=trained", "tasks.linear-probe.layers=one", "tasks.linear-probe.train.base_lr=0.1")
FINETUNE = (
    "tasks.finetune.drop_path=none",
    "tasks.finetune.mixup=0.8",
    "tasks.finetune.cutmix=1.0",
    "tasks.finetune.erase_prob=0.5",
    "tasks.finetune.train.epochs=2",
)


@pytest.mark.usefixtures("registered")
def test_drawn_clips_train_classifiers_of_motion(quick):
    options = ("data.length=12", "input.flip=0", "pretrain.epochs=1", *TRAINED, *FINETUNE)
    done = quick(*run("supervised", "linear-probe,finetune", *options), "--json")
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    assert 0
