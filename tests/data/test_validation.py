"""data.validation_share: a part of the training split is scored in place of the test split."""

from __future__ import annotations

import json

import pytest
import torch

from helpers.small_sets import TRAIN, edit, record, write_coco
from mimbench.contract import SemanticSplit
from mimbench.data import open_dataset
from mimbench.data.pipeline.subsets import subset
from mimbench.data.sources.embedded import Digits
from mimbench.data.validation import Validation, _SemanticPart
from mimbench.errors import InputError


def test_the_parts_divide_the_training_split_and_hold_no_test_image(tmp_path):
    whole = open_dataset("digits", {}, tmp_path)
    held = open_dataset("digits", {"validation_share": 0.25}, tmp_path)
    train, validation, everything = held.split("train"), held.split("test"), whole.split("train")
    assert len(validation) == round(0.25 * len(everything))
    assert len(train) + len(validation) == len(everything)

    def images(split):
        return sorted(image.numpy().tobytes() for image in split.images)

    assert sorted(images(train) + images(validation)) == images(everything)
    counts = torch.bincount(everything.labels) * 0.25
    assert (torch.bincount(validation.labels) - counts).abs().max() <= 1  # every class in proportion


class _Three(Digits):
    """Digits with a validation split, which is a part of the training images."""

    parts = ("train", "test", "validation")

    def split(self, name):
        return subset(super().split("train"), range(10)) if name == "validation" else super().split(name)


def test_other_splits_are_those_of_the_dataset(tmp_path):
    dataset = _Three(_Three.Config(validation_share=0.25), tmp_path)
    held = Validation(dataset, "data")
    assert held.parts == ("train", "test", "validation")
    assert torch.equal(held.split("validation").images, dataset.split("validation").images)
    assert len(held.split("test")) == round(0.25 * len(dataset.split("train")))
    with pytest.raises(InputError, match=r"dataset 'digits' has no split 'dev'; it has train, test, validation"):
        held.split("dev")


def test_a_share_is_part_of_the_fingerprint_and_none_leaves_it_as_it_was(tmp_path):
    prints = [open_dataset("digits", {"validation_share": share}, tmp_path).fingerprint() for share in (0, 0.2, 0.3)]
    assert len(set(prints)) == 3
    assert prints[0] == open_dataset("digits", {}, tmp_path).fingerprint()
    assert "validation_share" not in open_dataset("digits", {}, tmp_path).config.shaping()


def test_scenes_are_divided_with_their_objects(tmp_path):
    root = write_coco(tmp_path / "coco")
    edit(root / TRAIN, lambda content: content["annotations"].append(record(3, 9, 3)))
    dataset = open_dataset("coco", {"root": root, "validation_share": 0.34}, tmp_path / "cache")
    train, validation = dataset.split("train"), dataset.split("test")
    assert (len(train), len(validation)) == (2, 1)
    assert train.classes == validation.classes == ("cat", "dog")
    images, objects = set(), []
    for split in (train, validation):
        content = json.loads(split.annotations.read_text())
        names = {image["id"] for image in content["images"]}
        assert {one["image_id"] for one in content["annotations"]} <= names
        assert not names & images
        images |= names
        objects += content["annotations"]
    assert images == {7, 8, 9}
    assert len(objects) == 3


def test_scenes_without_objects_are_refused(tmp_path):
    root = write_coco(tmp_path / "coco")
    dataset = open_dataset("coco", {"root": root, "validation_share": 0.34}, tmp_path / "cache")
    with pytest.raises(InputError, match=r"holds no objects at validation_share 0\.34; change it"):
        dataset.split("test")


class _Stripes(SemanticSplit):
    classes = ("a", "b")

    def __len__(self):
        return 5

    def image(self, index):
        return f"{index}.png"

    def shape(self, index):
        return index, 2

    def labels(self, index):
        return torch.full((2, 2), index % 2, dtype=torch.uint8)


def test_a_part_of_label_images_keeps_each_image_with_its_labels():
    part = _SemanticPart(_Stripes(), [1, 4])
    assert len(part) == 2
    assert [(part.image(i), part.shape(i), int(part.labels(i)[0, 0])) for i in range(2)] == [
        ("1.png", (1, 2), 1),
        ("4.png", (4, 2), 0),
    ]
    assert part.counts().tolist() == [4, 4]


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.00001, r"task.data.validation_share 1e-05 of the 1437 training samples .* leaves none to score"),
        (0.9999, "leaves none to train on"),
        (1, "validation_share"),
        (-0.1, "validation_share"),
    ],
)
def test_a_share_that_leaves_nothing_is_refused(share, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_dataset("digits", {"validation_share": share}, tmp_path, "task.data")


def test_records_and_tables_say_that_the_score_is_of_a_validation_part(quick, tmp_path):
    command = ("run", "--method", "random-init", "--task", "knn", "--recipe", "smoke")
    done = quick(*command, "--set", "data.validation_share=0.2")
    assert done.returncode == 0, done.stderr
    (body,) = [json.loads(path.read_text()) for path in tmp_path.glob("runs/records/*.json")]
    assert body["protocol"]["dataset"]["validation_share"] == 0.2
    assert body["metrics"]["top1_k20"]["n"] == 40  # of the recipe's 200 training images
    note = "knn scored on 20 % of the training split, held out, not on the test split"
    assert note in quick("table").stdout
    assert "40 of 200 training samples are scored, not the test split" in done.stderr + done.stdout
    assert quick(*command).returncode == 0
    both = quick("table").stdout
    assert note in both
    assert " ".join(both.split()).count("k-NN top-1 (k") == 2, "one column each"


def test_a_share_that_the_pretraining_has_seen_is_refused(quick, tmp_path):
    command = ("run", "--task", "knn", "--recipe", "smoke")
    refused = "holds out images that the pretraining has seen, with its own share of 0; pretrain with the same"
    done = quick(*command, "--method", "simmim", "--set", "tasks.knn.data.validation_share=0.2")
    assert (done.returncode, refused in done.stderr) == (2, True)
    whole = quick(*command, "--method", "simmim")
    assert whole.returncode == 0, whole.stderr
    (checkpoint,) = tmp_path.glob("runs/checkpoints/*")
    done = quick(*command, "--checkpoint", str(checkpoint), "--set", "data.validation_share=0.2")
    assert (done.returncode, refused in done.stderr) == (2, True)
    assert quick(*command, "--method", "random-init", "--set", "tasks.knn.data.validation_share=0.2").returncode == 0
    equal = ("--set", "data.validation_share=0.2", "--set", "tasks.knn.data.validation_share=0.2")
    assert quick(*command, "--method", "simmim", *equal).returncode == 0
