"""A dataset of four bands as a plugin: tasks work on it, or refuse it before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugins.bands import SPECTRA, Bands

from helpers.refusals import refused
from mimbench.testing import dataset_suite, parametrize_checks


@parametrize_checks(dataset_suite(Bands))
def test_bands_passes_the_checks_for_datasets(check):
    check()


def test_grass_and_shade_differ_in_the_fourth_band_only():
    split = Bands(Bands.Config(), Path("unused")).split("train")
    means = split.images.float().mean((2, 3))
    grass, shade = (means[split.labels == list(SPECTRA).index(name)].mean(0) for name in ("grass", "shade"))
    gaps = (grass - shade).abs().tolist()
    assert max(gaps[:3]) < 10
    assert gaps[3] > 120


def run(task, *settings, method="simmim"):
    options = ["data.name=bands", "pretrain.epochs=1", "pretrain.schedule.warmup_epochs=0", "pretrain.batch_size=32"]
    chosen = [word for setting in (*options, *settings) for word in ("--set", setting)]
    return ["run", "--recipe", "smoke", "--method", method, "--task", task, *chosen]


@pytest.mark.usefixtures("registered")
def test_tasks_and_pictures_take_any_number_of_channels(quick):
    judged = ("tasks.reconstruction.judge.epochs=1", "tasks.reconstruction.generated=8")
    done = quick(*run("linear-probe,knn,reconstruction", *judged), "--json")
    assert done.returncode == 0, done.stderr
    assert "no picture" not in done.stderr
    records = {record["task"]["name"]: record for record in json.loads(done.stdout)}
    assert records["linear-probe"]["metrics"]["top1"]["value"] > 90
    assert records["linear-probe"]["dataset"]["name"] == "bands"
    assert set(records["reconstruction"]["artifacts"]) == {"reconstruction", "rebuilt", "generated"}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("robustness", (), "robustness is defined on grey and RGB images, and dataset 'bands' has 4 channels"),
        ("detection", (), "detection is defined on grey and RGB images, and the encoder has 4 channels"),
        ("segmentation", (), "segmentation is defined on grey and RGB images, and the encoder has 4 channels"),
        ("finetune", ("tasks.finetune.rand_augment=rand-m9-mstd0.5-inc1",), "timm's augmentation takes grey and RGB"),
        ("knn", ("input.color_jitter=0.4",), "take grey and RGB images, and these have"),
    ],
)
def test_what_is_defined_on_grey_and_rgb_refuses_others(quick, task, settings, words, tmp_path):
    refused(quick(*run(task, *settings), "--results", "results"), words)
    assert not (tmp_path / "results").exists()
