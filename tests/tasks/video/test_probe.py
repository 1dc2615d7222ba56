"""Frozen probes of clips: what each of them reads, over several views and with frames shuffled."""

from __future__ import annotations

import json

import pytest

from helpers.refusals import refused
from helpers.video_files import write_video

BRIEF = (
    *("data.train_clips=96", "data.test_clips=48", "pretrain.epochs=1", "pretrain.schedule.warmup_epochs=0"),
    *("tasks.video-probe.train.epochs=1", "tasks.video-probe.train.schedule.warmup_epochs=0"),
)


def options(*settings):
    return [word for setting in settings for word in ("--set", setting)]


def run(quick, *settings):
    done = quick("run", "--json", "--method", "random-init", "--task", "video-probe", *options(*settings))
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    return record


def test_without_a_recipe_it_probes_the_embedded_clips(quick):
    record = run(quick, *BRIEF)
    assert record["dataset"]["name"] == "moving-digits"
    values = {name: one["value"] for name, one in record["metrics"].items()}
    assert {f"top1_{probe}{end}" for probe in ("linear", "knn", "attentive") for end in ("", "_shuffled")} < set(values)
    assert len(record["details"]["linear"]["classes"]) == 8
    assert record["details"]["absent"] == {}


def test_linear_and_knn_are_those_of_the_tasks_of_images(quick):
    probes = run(quick, *BRIEF, 'task.probes=["linear","knn"]')
    assert "top1_attentive" in probes["details"]["absent"]
    done = quick(
        *("run", "--json", "--method", "random-init", "--task", "linear-probe,knn"),
        *("--recipe", "moving-digits-vit-tiny", *options(*BRIEF[:4])),
    )
    assert done.returncode == 0, done.stderr
    linear, knn = json.loads(done.stdout)
    assert probes["metrics"]["top1_linear"]["value"] == linear["metrics"]["top1"]["value"]
    assert probes["metrics"]["top1_knn"]["value"] == knn["metrics"]["top1_k20"]["value"]


def test_videos_are_shown_in_several_views(quick, tmp_path):
    for part, count in (("train", 12), ("val", 4)):
        for label in ("short", "long"):
            for number in range(count):
                frames = 12 if label == "short" else 24
                write_video(tmp_path / "videos" / part / label / f"{number}.mp4", frames=frames)
    settings = (
        *("data.name=videos", f"data.root={tmp_path / 'videos'}", "data.frames=4", "data.stride=2", "data.channels=1"),
        *("input.frames=4", "pretrain.epochs=1", "pretrain.schedule.warmup_epochs=0", "task.train.workers=0"),
        *("task.train.epochs=1", "task.train.schedule.warmup_epochs=0", "task.train.batch_size=8"),
    )
    one = run(quick, *settings)
    several = run(quick, *settings, "task.clips=3", "task.crops=3")
    assert several["metrics"]["top1_linear"]["n"] == one["metrics"]["top1_linear"]["n"] == 8
    assert (several["protocol"]["clips"], several["protocol"]["crops"]) == (3, 3)


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("videomae", ("task.clips=5",), "task.clips 5: this dataset's clips are not cut out of longer ones"),
        ("videomae", ("task.neighbours=5000",), "task.neighbours 5000 is more than the 4000 training clips"),
        ("videomae", ('task.probes=["knn"]',), 'it lacks "linear", whose accuracy is the primary metric'),
        ("mae", (), "takes images and no clips"),
    ],
)
def test_what_cannot_be_probed_is_refused(quick, method, settings, words):
    refused(quick("run", "--method", method, "--task", "video-probe", *options(*settings)), words)


def test_images_are_refused(quick):
    done = quick("run", "--method", "simmim", "--task", "video-probe", "--recipe", "smoke")
    refused(done, "takes clips and no images, and input.frames is 1; choose a recipe of clips")
