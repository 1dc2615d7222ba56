"""Images of four bands: tasks work on them, or refuse them before anything is computed."""

from __future__ import annotations

import json

import pytest
import torch

from helpers.refusals import refused
from mimbench import registry
from mimbench.contract import ArraySplit, Dataset
from mimbench.contract.dataset import DataConfig


class Bands(Dataset):
    """Two classes that the fourth band alone keeps apart."""

    name = "bands"
    Config = DataConfig
    channels = 4

    def fingerprint(self):
        return "bands"

    def split(self, name):
        count = 64 if name == "train" else 32
        generator = torch.Generator().manual_seed(count)
        labels = torch.arange(count) % 2
        images = torch.randint(60, 120, (count, 4, 28, 28), generator=generator, dtype=torch.uint8)
        images[:, 3] += (100 * labels).to(torch.uint8)[:, None, None]
        return ArraySplit(images, labels, ("low", "high"))


@pytest.fixture
def bands(monkeypatch):
    monkeypatch.setitem(registry.datasets.replacements, "bands", Bands)


def run(task, *settings, method="simmim"):
    options = ["data.name=bands", "pretrain.epochs=1", "pretrain.schedule.warmup_epochs=0", "pretrain.batch_size=32"]
    chosen = [word for setting in (*options, *settings) for word in ("--set", setting)]
    return ["run", "--recipe", "smoke", "--method", method, "--task", task, *chosen]


def test_tasks_and_pictures_take_any_number_of_channels(quick, bands):
    judged = ("tasks.reconstruction.judge.epochs=1", "tasks.reconstruction.generated=8")
    done = quick(*run("linear-probe,knn,reconstruction", *judged), "--json")
    assert done.returncode == 0, done.stderr
    assert "no picture" not in done.stderr
    records = {record["task"]["name"]: record for record in json.loads(done.stdout)}
    assert records["linear-probe"]["metrics"]["top1"]["value"] > 90
    assert set(records["reconstruction"]["artifacts"]) == {"reconstruction", "rebuilt", "generated"}


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
def test_what_is_defined_on_grey_and_rgb_refuses_others(quick, bands, task, settings, words, tmp_path):
    refused(quick(*run(task, *settings), "--results", "results"), words)
    assert not (tmp_path / "results").exists()
