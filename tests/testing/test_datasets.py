"""The checks of datasets: built-in datasets pass them, and each check fails on a dataset that is wrong in its way."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from mimbench import registry
from mimbench.contract import ArraySplit, DataConfig, Dataset, SceneSplit, SemanticSplit
from mimbench.testing.datasets import DATASET_CHECKS, check_dataset
from tests.helpers.small_sets import write_coco

EMBEDDED = {
    "mnist5k": {"train_limit": 200, "test_limit": 100},
    "digits": {},
    "digit-scenes": {"train_scenes": 6, "test_scenes": 3},
}


def skipped(dataset, options=None, **setting) -> set[str]:
    """Names of the skipped checks; every other check has passed."""
    results = check_dataset(dataset, options, **setting)
    assert [result for result in results if result.status in ("failed", "waived")] == []
    return {result.name for result in results if result.status == "skipped"}


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_datasets_pass(name):
    allowed = set() if name == "digit-scenes" else {"annotations_fit_the_images"}
    assert skipped(registry.datasets.load(name), EMBEDDED[name]) == allowed


def test_a_coco_folder_shows_its_faults(tmp_path):
    root = write_coco(tmp_path / "coco")
    results = {result.name: result for result in check_dataset(registry.datasets.load("coco"), {"root": root})}
    failures = {name for name, result in results.items() if result.status == "failed"}
    assert failures == {"splits_are_disjoint"}  # its small images are equal in both splits
    assert "2 images of test are in train as well" in results["splits_are_disjoint"].message
    assert results["annotations_fit_the_images"].status == "passed"


class PlainConfig(DataConfig):
    weights: Path | None = None


class Plain(Dataset):
    """An honest dataset in memory, of which the others here are wrong versions."""

    name = "plain"
    Config = PlainConfig
    channels = 1
    counts = (12, 6)

    def __init__(self, config, cache):
        super().__init__(config, cache)
        self.splits = {
            name: self.draw(seed, count)
            for seed, (name, count) in enumerate(zip(("train", "test"), self.counts, strict=True))
        }

    def draw(self, seed, count):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
        return ArraySplit(images, torch.arange(count) % 2, ("a", "b"))

    def split(self, name):
        return self.splits[name]

    def fingerprint(self):
        return hashlib.sha256(b"".join(split.images.numpy().tobytes() for split in self.splits.values())).hexdigest()


class NoName(Plain):
    name = None


class OddConfig(PlainConfig):
    def shaping(self):
        return {**super().shaping(), "scale": {1.0}}


class Odd(Plain):
    Config = OddConfig


class ByNameConfig(PlainConfig):
    def shaping(self):
        return {**super().shaping(), "weights": str(self.weights)}


class ByName(Plain):
    Config = ByNameConfig


class OtherForm(Plain):
    provides = frozenset({"masks"})


class Empty(Plain):
    counts = (12, 0)


class OtherClasses(Plain):
    def draw(self, seed, count):
        split = super().draw(seed, count)
        split.classes = ("b", "a") if seed else ("a", "b")
        return split


class Doubles(Plain):
    def draw(self, seed, count):
        split = super().draw(seed, count)
        split.images = split.images.double()
        return split


class Bright(Plain):
    """Images of 0 to 255 that are declared as 0 to 1."""

    def draw(self, seed, count):
        split = super().draw(seed, count)
        split.images = split.images.float()
        split.images[:, :, 0, :2] = torch.tensor([0.0, 255.0])
        split.pixel_range = (0.0, 1.0)
        return split


class ShiftedBytes(Plain):
    def draw(self, seed, count):
        split = super().draw(seed, count)
        split.pixel_range = (1, 255)
        return split


class Attributed(Plain):
    """Each image has a background, as a float."""

    def draw(self, seed, count):
        split = super().draw(seed, count)
        split.attributes = {"background": torch.zeros(count)}
        return split


class OnlyTraining(Plain):
    parts = ("train",)


class Validated(Plain):
    """Its validation split repeats the training split."""

    parts = ("train", "test", "validation")

    def split(self, name):
        return self.splits["train" if name == "validation" else name]


class Coloured(Plain):
    channels = 3


class OneTooMany(Plain):
    def draw(self, seed, count):
        split = super().draw(seed, count)
        split.labels = split.labels + 1
        return split


class ShortLabels(Plain):
    def draw(self, seed, count):
        split = super().draw(seed, count)
        split.labels = split.labels.short()
        return split


class Swapped(ArraySplit):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, 1 - label


class Disagreeing(Plain):
    def draw(self, seed, count):
        split = super().draw(seed, count)
        return Swapped(split.images, split.labels, split.classes)


class Repeating(Plain):
    def draw(self, seed, count):
        return super().draw(0, count)


class Noisy(ArraySplit):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image ^ torch.randint(0, 256, image.shape, dtype=torch.uint8), label


class Restless(Plain):
    def draw(self, seed, count):
        split = super().draw(seed, count)
        return Noisy(split.images, split.labels, split.classes)


class RandomOrder(Plain):
    """Draws its images anew in each instance; its fingerprint does not show it."""

    def draw(self, seed, count):
        return super().draw(torch.randint(2**31, ()).item(), count)

    def fingerprint(self):
        return "1"


class Counting(Plain):
    calls = 0

    def fingerprint(self):
        Counting.calls += 1
        return str(Counting.calls)


class Hashed(Plain):
    def fingerprint(self):
        return str(hash("plain"))


class ProcessId(Plain):
    def fingerprint(self):
        return str(os.getpid())


class Scenes(Dataset):
    """Two scenes per split with one box each."""

    name = "scenes"
    provides = frozenset({"boxes"})
    channels = 1
    box = (2, 2, 4, 4)
    category = 1
    size = (16, 16)

    def __init__(self, config, cache):
        super().__init__(config, cache)
        for seed, name in enumerate(("train", "test")):
            folder = cache / type(self).__name__ / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(2):
                Image.new("L", (16, 16), 50 * seed + number).save(folder / f"{number}.png")
            document = {
                "images": [
                    {"id": number, "file_name": f"{number}.png", "width": self.size[0], "height": self.size[1]}
                    for number in range(2)
                ],
                "annotations": [
                    {"id": number + 1, "image_id": number, "category_id": self.category, "bbox": list(self.box)}
                    for number in range(2)
                ],
                "categories": [{"id": 1, "name": "dot"}],
            }
            (folder / "annotations.json").write_text(json.dumps(document))

    def split(self, name):
        folder = self.cache / type(self).__name__ / name
        return SceneSplit(folder / "annotations.json", folder, ("dot",), 2)

    def fingerprint(self):
        return "scenes"


class BoxOutside(Scenes):
    box = (10, 2, 20, 4)


class BoxEmpty(Scenes):
    box = (10, 2, 0, 4)


class SceneSizes(Scenes):
    size = (32, 32)


class UnknownCategory(Scenes):
    category = 7


class PixelSplit(SemanticSplit):
    classes = ("sky", "sea")

    def __init__(self, folder, seed, side, label):
        self.folder, self.seed, self.side, self.label = folder, seed, side, label
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), seed).save(self.image(0))

    def __len__(self):
        return 1

    def image(self, index):
        return self.folder / f"{self.seed}.png"

    def shape(self, index):
        return (16, 16)

    def labels(self, index):
        return torch.full((self.side, self.side), self.label, dtype=torch.uint8)


class Pixels(Dataset):
    name = "pixels"
    provides = frozenset({"masks"})
    channels = 1
    side, label = 16, 1

    def split(self, name):
        return PixelSplit(self.cache / "pixels", int(name == "test"), self.side, self.label)

    def fingerprint(self):
        return "pixels"


class SmallMask(Pixels):
    side = 8


class ThirdClass(Pixels):
    label = 2


WRONG: dict[str, list[tuple[type[Dataset], str]]] = {
    "metadata_is_complete": [(NoName, "no `name`")],
    "options_are_plain": [(Odd, "JSON cannot hold")],
    "files_count_by_content": [(ByName, "'weights' enters the fingerprint by the name of its file")],
    "splits_open": [
        (OtherForm, "the train split is a ArraySplit, and provides = ['masks'] means SemanticSplit"),
        (OnlyTraining, "parts is ('train',)"),
        (Empty, "the test split has no images"),
        (OtherClasses, "different classes"),
    ],
    "images_have_their_form": [
        (Doubles, "image 0 of train is torch.float64 [1, 8, 8]; return a tensor of uint8, uint16 or float32"),
        (Bright, "has pixels from 0 to 255, and pixel_range is (0, 1)"),
        (ShiftedBytes, "is uint8, and pixel_range is (1, 255)"),
        (Coloured, "has shape [1, 8, 8], and channels is 3"),
    ],
    "labels_are_within_classes": [
        (OneTooMany, "labels of train run from 1 to 2, beyond 0 to 1 of the 2 classes"),
        (ShortLabels, "labels of train are torch.int16"),
        (Disagreeing, "image 0 of train has label 1"),
        (UnknownCategory, "annotation 1 of train has an unknown category"),
        (Attributed, "values of the attribute 'background' of train are torch.float32 [12]; return int64 [12]"),
        (ThirdClass, "up to 2, and there are 2 classes"),
    ],
    "annotations_fit_the_images": [
        (BoxOutside, "reaches out of its image of 16 x 16 px"),
        (BoxEmpty, "is empty or reaches out"),
        (SceneSizes, "scene 0 of train is (16, 16), and its entry is (32, 32)"),
        (SmallMask, "its labels are (8, 8)"),
    ],
    "splits_are_disjoint": [
        (Repeating, "6 images of test are in train as well"),
        (Validated, "12 images of validation are in train as well"),
    ],
    "reading_is_deterministic": [(Restless, "differs when it is read again"), (RandomOrder, "in a new instance")],
    "fingerprint_is_stable": [(Counting, "from call to call")],
    "fingerprint_is_equal_in_other_processes": [(Hashed, "from process to process"), (ProcessId, "process")],
}


def test_each_check_has_a_wrong_dataset():
    assert set(WRONG) == {one.name for one in DATASET_CHECKS}


@pytest.mark.parametrize(
    ("dataset", "allowed"), [(Plain, {"annotations_fit_the_images"}), (Scenes, set()), (Pixels, set())]
)
def test_an_honest_dataset_passes(dataset, allowed, tmp_path):
    assert skipped(dataset, cache=tmp_path) == allowed


@pytest.mark.parametrize(
    ("name", "dataset", "text"),
    [(name, dataset, text) for name, wrong in WRONG.items() for dataset, text in wrong],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_wrong_dataset_fails_its_check_and_no_other(name, dataset, text, tmp_path):
    class Local(dataset):
        """A class that no other process can import: starting one takes seconds."""

    checked = dataset if name == "fingerprint_is_equal_in_other_processes" else Local
    results = check_dataset(checked, cache=tmp_path)
    failures = {result.name: result.message for result in results if result.status == "failed"}
    assert set(failures) == {name}
    assert text in failures[name]
    assert "; " in failures[name]
    assert "test_datasets.py:" in failures[name]
