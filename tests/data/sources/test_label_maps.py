"""Cityscapes and VOC 2012 segmentation by path: splits, class numbers, fingerprints, and files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mimbench.contract import InputError
from mimbench.data import open_dataset
from mimbench.data.sources.cityscapes import CLASSES
from mimbench.registry import datasets
from mimbench.testing.datasets import check_dataset

CITY_IDS = np.array([[7, 8, 33, 0], [4, 34 - 1, 255, 24]], np.uint8)
"""road, sidewalk, bicycle, unlabeled; static, bicycle, ignored, person."""
TRAIN_IDS = [[0, 1, 18, 255], [255, 18, 255, 11]]


def write_city(root, *, ids=True, size=(2, 4)):
    rng = np.random.default_rng(0)
    for split, frames in (("train", 3), ("val", 2)):
        for kind in ("leftImg8bit", "gtFine"):
            (root / kind / split / "ulm").mkdir(parents=True)
        for frame in range(frames):
            stem = f"ulm_{frame:06d}_000019"
            pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "leftImg8bit" / split / "ulm" / f"{stem}_leftImg8bit.png")
            folder = root / "gtFine" / split / "ulm"
            labels = CITY_IDS if ids else np.array(TRAIN_IDS, np.uint8)
            name = "labelIds" if ids else "labelTrainIds"
            Image.fromarray(labels).save(folder / f"{stem}_gtFine_{name}.png")
            Image.fromarray(labels).save(folder / f"{stem}_gtFine_instanceIds.png")
            (folder / f"{stem}_gtFine_polygons.json").write_text("{}")
    return root


def city(root, tmp_path, **options):
    return open_dataset("cityscapes", {"root": str(root), **options}, tmp_path / "cache")


def test_label_ids_and_train_ids_mean_the_same(tmp_path):
    one, other = city(write_city(tmp_path / "a"), tmp_path), city(write_city(tmp_path / "b", ids=False), tmp_path)
    for dataset in (one, other):
        train, test = dataset.split("train"), dataset.split("test")
        assert (len(train), len(test)) == (3, 2)
        assert train.classes[:2] == ("road", "sidewalk")
        assert train.classes[18] == "bicycle"
        assert len(train.classes) == len(CLASSES) == 19
        assert train.labels(0).tolist() == TRAIN_IDS
        assert train.shape(0) == (2, 4)
        assert train.counts().tolist() == [3, 3, *[0] * 9, 3, *[0] * 6, 6]
        assert train.image(0).name == "ulm_000000_000019_leftImg8bit.png"
    assert one.fingerprint() != other.fingerprint(), "other files"
    assert one.fingerprint() == city(write_city(tmp_path / "c"), tmp_path).fingerprint()
    assert city(tmp_path / "a", tmp_path, channels=1).fingerprint() != one.fingerprint()


def test_train_ids_are_taken_if_both_are_there(tmp_path):
    root = write_city(tmp_path / "a")
    for path in list((root / "gtFine").rglob("*_labelIds.png")):
        labels = np.full((2, 4), 5, np.uint8)
        Image.fromarray(labels).save(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    assert city(root, tmp_path).split("train").labels(0).unique().tolist() == [5]


def spoil_value(root):
    Image.fromarray(np.full((2, 4), 40, np.uint8)).save(label(root))


def spoil_missing(root):
    label(root).unlink()


def spoil_image(root):
    next((root / "leftImg8bit" / "train").rglob("*.png")).write_bytes(b"nothing")


def spoil_label(root):
    label(root).write_bytes(label(root).read_bytes()[:30])


def spoil_size(root):
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(label(root))


def spoil_folder(root):
    (root / "gtFine" / "val").rename(root / "gtFine" / "validation")


def label(root):
    return root / "gtFine" / "train" / "ulm" / "ulm_000001_000019_gtFine_labelIds.png"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_value, r"ulm_000001_000019_gtFine_labelIds\.png holds the value 40; labelIds are 0 to 33"),
        (spoil_missing, r"1 of 3 images have no \*_gtFine_labelIds\.png in .*: leftImg8bit/train/ulm/ulm_000001"),
        (spoil_image, r"1 files under .* cannot be read: leftImg8bit/train/ulm/ulm_000000"),
        (spoil_label, r"labelIds\.png.* cannot be read"),
        (spoil_size, r"labelIds\.png has 4 x 3 px, its image 4 x 2"),
        (spoil_folder, r"has no gtFine/val; data\.root is the folder with leftImg8bit"),
    ],
)
def test_bad_files_are_named_in_one_line(spoil, words, tmp_path):
    root = write_city(tmp_path / "a")
    spoil(root)
    with pytest.raises(InputError, match=words) as caught:
        city(root, tmp_path)
    assert "\n" not in str(caught.value)


def write_voc(root, train=("2007_1", "2007_2"), val=("2007_3",)):
    folders = [root / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")]
    for folder in folders:
        folder.mkdir(parents=True)
    palette = [channel for value in range(256) for channel in (value, 255 - value, value // 2)]
    for number, stem in enumerate((*train, *val)):
        Image.fromarray(np.full((4, 6, 3), 40 * number, np.uint8)).save(folders[0] / f"{stem}.jpg")
        labels = Image.fromarray(np.array([[0, 0, 15, 15, 255, 20]] * 4, np.uint8))
        labels.putpalette(palette)
        labels.save(folders[1] / f"{stem}.png")
    (folders[2] / "train.txt").write_text("\n".join(train) + "\n")
    (folders[2] / "val.txt").write_text("\n".join(val) + "\n")
    return root


def voc(root, tmp_path, **options):
    return open_dataset("voc-segmentation", {"root": str(root), **options}, tmp_path / "cache")


def test_voc_is_read_by_its_lists_from_any_level(tmp_path):
    write_voc(tmp_path / "data" / "VOCdevkit" / "VOC2012")
    opened = [voc(tmp_path / path, tmp_path) for path in ("data", "data/VOCdevkit", "data/VOCdevkit/VOC2012")]
    assert len({dataset.fingerprint() for dataset in opened}) == 1
    train = opened[0].split("train")
    assert (len(train), len(opened[0].split("test"))) == (2, 1)
    assert train.classes[0] == "background"
    assert (train.classes[15], train.classes[20], len(train.classes)) == ("person", "tvmonitor", 21)
    assert train.labels(0)[0].tolist() == [0, 0, 15, 15, 255, 20]


def test_other_lists_and_annotations_of_voc(tmp_path):
    root = write_voc(tmp_path / "a")
    (root / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("2007_1\n2007_2\n")
    (root / "SegmentationClass").rename(root / "SegmentationClassAug")
    dataset = voc(root, tmp_path, train="trainaug", annotations="SegmentationClassAug")
    assert len(dataset.split("train")) == 2
    for options, words in (
        ({"annotations": "SegmentationClassAug", "train": "val"}, "1 images are in both lists, val and val"),
        ({"annotations": "SegmentationClassAug", "test": "none"}, "there is no list .*none.txt"),
        ({}, "nor a folder in it has JPEGImages, ImageSets/Segmentation, SegmentationClass"),
    ):
        with pytest.raises(InputError, match=words):
            voc(root, tmp_path, **options)
    (root / "JPEGImages" / "2007_2.jpg").unlink()
    with pytest.raises(InputError, match=r"'JPEGImages/2007_2\.jpg', which the list train names, does not exist"):
        voc(root, tmp_path, annotations="SegmentationClassAug")


@pytest.mark.parametrize(("name", "write"), [("cityscapes", write_city), ("voc-segmentation", write_voc)])
def test_they_pass_the_checks_of_a_dataset(name, write, tmp_path):
    root = write(tmp_path / "a")
    results = check_dataset(datasets.load(name), {"root": str(root)}, cache=tmp_path / "cache")
    bad = [result for result in results if result.status not in ("passed", "skipped")]
    assert bad == []
    sizes = datasets.load(name).published_sizes(datasets.load(name).Config())
    assert sizes is not None
    assert sizes.test in (500, 1449)
