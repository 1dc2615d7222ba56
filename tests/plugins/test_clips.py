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


@pytest.mark.usefixtures("registered")
def test_fine_tuning_learns_motion_that_no_frame_shows(quick):
    options = (
        "input.flip=0",
        "tasks.finetune.drop_path=none",
        "tasks.finetune.train.epochs=16",
        "tasks.finetune.train.base_lr=4e-3",
        "tasks.finetune.train.layer_decay=none",
    )
    done = quick(*run("random-init", "finetune", *options), "--json")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["metrics"]["top1"]["value"] > 60


@pytest.mark.usefixtures("registered")
def test_clips_drawn_from_longer_videos_train_probes_and_classifiers(quick):
    options = (
        "data.length=12",
        "pretrain.epochs=1",
        "pretrain.workers=0",
        "pretrain.channels_last=true",
        "tasks.linear-probe.probe=trained",
        "tasks.linear-probe.train.workers=0",
        "tasks.finetune.train.workers=0",
        "tasks.finetune.drop_path=none",
        "tasks.finetune.mixup=0.8",
        "tasks.finetune.cutmix=1.0",
        "tasks.finetune.erase_prob=0.5",
    )
    done = quick(*run("supervised", "linear-probe,finetune", *options), "--json")
    assert done.returncode == 0, done.stderr
    assert [record["metrics"]["top1"]["n"] for record in json.loads(done.stdout)] == [120, 120]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("methods", "tasks", "settings", "words"),
    [
        ("random-init", "knn", ("encoder.name=vit",), "input.frames 8: a vit encoder takes images and no clips"),
        ("autoencoder", "knn", (), "takes images and no clips, and input.frames is 8; choose a method"),
        ("tube-mae", "reconstruction", (), "takes images and no clips, and input.frames is 8; leave the task out"),
        ("tube-mae", "detection", (), "takes images and no clips, and input.frames is 8; leave the task out"),
        ("tube-mae", "knn", ("input.frames=4",), "has clips of 8 frames, and input.frames is 4; set input.frames to 8"),
        ("tube-mae", "knn", ("data.name=mnist5k",), "dataset 'mnist5k' has images, and input.frames is 8"),
        ("tube-mae", "knn", ("encoder.tubelet=3",), "do not tile clips of 8 frames"),
        ("mae", "knn", (), "takes images and no clips"),
    ],
)
def test_what_takes_no_clips_refuses_them_while_planning(quick, methods, tasks, settings, words, tmp_path):
    refused(quick(*run(methods, tasks, *settings)), words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("registered")
def test_clips_are_refused_without_frames(quick):
    done = quick("run", "--recipe", "smoke", "--method", "simmim", "--task", "knn", "--set", "data.name=moving-squares")
    refused(done, "dataset 'moving-squares' has clips of 8 frames, and input.frames is 1; set input.frames to 8")


@pytest.mark.usefixtures("registered")
def test_commands_count_the_cells_of_a_clip(quick):
    options = ["--method", "tube-mae", *run("", "")[7:]]
    shown = quick("show", "recipe", "smoke", *options)
    assert shown.returncode == 0, shown.stderr
    assert "# mask: 48 of 4 x 4 x 4 = 64 patches masked (75.0%)" in shown.stdout
    assert "frames = 8  # set on the command line" in shown.stdout
    cost = quick("cost", "--recipe", "smoke", *options)
    assert cost.returncode == 0, cost.stderr
    assert cost.stdout.splitlines()[-1].split()[1] == "cube-vit"
    refusal = quick("show", "recipe", "smoke", *options, "--set", "encoder.name=vit")
    refused(refusal, "a vit encoder takes images and no clips")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("kind", ["encoder cube-vit", "method tube-mae", "dataset moving-squares"])
def test_the_check_command_takes_clips(quick, kind):
    settings = () if "dataset" in kind else run("", "")[9:]
    done = quick("check", *kind.split(), "--recipe", "smoke", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
