"""A folder of all kinds of images at once, through the real command."""

from __future__ import annotations

import json

import pytest

from helpers.refusals import refused
from helpers.untidy import every_kind
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig


def test_every_file_of_an_untidy_folder_can_be_read(tmp_path, cache):
    dataset = Folder(FolderConfig(root=every_kind(tmp_path / "all of them")), cache)
    assert dataset.classes == ("cat (große)", "dog", "鳥")
    train, test = dataset.split("train"), dataset.split("test")
    assert train.labels.bincount().tolist() == [66, 67]
    assert test.labels.bincount().tolist() == [22, 22, 1]
    shapes = {train.path(index).stem: train[index][0].shape for index in range(len(train))}
    assert {shape[0] for shape in shapes.values()} == {3}
    assert (shapes["plain 0"], shapes["turned-0"], shapes["dot-0"]) == ((3, 20, 24), (3, 24, 20), (3, 1, 1))
    assert shapes["huge"] == (3, 6000, 8000)


@pytest.mark.e2e
def test_a_run_on_an_untidy_folder(quick, tmp_path):
    root = every_kind(tmp_path / "all of them")
    run = ("run", "--recipe", "smoke", "--method", "simmim", "--task", "linear-probe,knn", "--json")
    where = ("--set", "data.name=folder", "--set", f"data.root={root}", "--set", "pretrain.epochs=1")
    run = (*run, *where, "--set", "pretrain.schedule.warmup_epochs=0")
    dog = root / "train" / "dog"
    (dog / "cut ü.png").write_bytes((dog / "plain 0.png").read_bytes()[:300])
    (dog / "no image.jpg").write_text("not an image")
    refused(quick(*run), "2 of 180 images are unreadable", "train/dog/cut ü.png", "data.on_bad_image=skip")
    done = quick(*run, "--set", "data.on_bad_image=skip")
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("skipped")]
    assert said.startswith(f"skipped 2 of 180 images, unreadable, under {root}: train/dog/cut ü.png (")
    probe, knn = json.loads(done.stdout)
    assert probe["metrics"]["top1"]["n"] == knn["metrics"]["top1_k20"]["n"] == 45
    # Dark and bright images, whatever they are stored as: what is read wrong is not told apart.
    assert probe["metrics"]["top1"]["value"] > 90
