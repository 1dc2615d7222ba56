"""Label maps of scenes, ADE20K-format folders good and bad, and what augmentation does to both."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from helpers.tiny_segmentation import settings, write_folder
from mimbench import registry
from mimbench.contract import InputError, RunError, SceneSplit
from mimbench.data import open_dataset
from mimbench.data.sources.ade20k import Ade20k, read_labels
from mimbench.toolkit.semantic_splits import SceneLabels, semantic_split
from mimbench_tasks.segmentation.data import LabelledImages, training_transforms


def ade20k(root, tmp_path, **options):
    return open_dataset("ade20k", {"root": str(root), **options}, tmp_path / "cache")


def test_label_maps_of_scenes_by_brute_force(cache):
    dataset = open_dataset("digit-scenes", {"train_scenes": 6, "test_scenes": 4, "size": 64}, cache)
    split = semantic_split(dataset, "test")
    assert split.classes == ("background", *"0123456789")
    coco = json.loads(dataset.split("test").annotations.read_text())
    total = np.zeros(11, int)
    for index in range(len(split)):
        labels = split.labels(index).numpy()
        assert labels.shape == split.shape(index) == (64, 64)
        for y, x in np.ndindex(labels.shape):
            expected = 0
            for one in coco["annotations"]:
                if one["image_id"] == index and rle.decode(one["segmentation"])[y, x]:
                    expected = one["category_id"]
            assert labels[y, x] == expected
        total += np.bincount(labels.ravel(), minlength=11)
    assert split.counts().tolist() == total.tolist()
    assert total[1:].sum() > 0


def write_coco(folder, annotations):
    folder.mkdir(exist_ok=True)
    Image.new("L", (6, 4)).save(folder / "a.png")
    categories = [{"id": 9, "name": "late"}, {"id": 4, "name": "early"}]
    images = [{"id": 3, "file_name": "a.png", "height": 4, "width": 6}]
    path = folder / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return SceneSplit(path, folder, ("early", "late"), 1)


def rectangle(number, category, left, right, **more):
    polygon = [left, 0, right, 0, right, 4, left, 4]
    return {"id": number, "image_id": 3, "category_id": category, "segmentation": [polygon], "iscrowd": 0, **more}


def test_of_overlapping_instances_the_later_wins(tmp_path):
    split = SceneLabels(write_coco(tmp_path, [rectangle(7, 9, 0, 4), rectangle(2, 4, 2, 5)]))
    assert split.classes == ("background", "early", "late")
    assert split.labels(0).tolist() == [[2, 2, 1, 1, 1, 0]] * 4


def test_scenes_without_masks_are_refused(tmp_path):
    with pytest.raises(InputError, match="object 7 of 1 has no mask"):
        SceneLabels(write_coco(tmp_path, [rectangle(7, 9, 0, 4, segmentation=[])]))
    with pytest.raises(InputError, match=r"cannot read .* as COCO"):
        SceneLabels(SceneSplit(tmp_path / "none.json", tmp_path, (), 1))


def test_ade20k_numbers_from_one_and_ignores_zero(tmp_path):
    dataset = ade20k(write_folder(tmp_path / "a"), tmp_path)
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (4, 2)
    assert train.classes == ("kind 0", "kind 1", "kind 2")
    values = np.array(Image.open(tmp_path / "a" / "annotations" / "training" / "p 0.png"))
    labels = train.labels(0).numpy()
    assert set(np.unique(labels)) == {0, 1, 2, 255}
    np.testing.assert_array_equal(labels[values > 0], values[values > 0] - 1)
    assert (labels[values == 0] == 255).all()
    assert train.shape(0) == (40, 56)
    by_hand = sum(torch.bincount(train.labels(i).flatten().long(), minlength=256)[:3] for i in range(4))
    assert train.counts().tolist() == by_hand.tolist()
    assert train.image(0).name == "p 0.png"


def test_ade20k_without_reducing_keeps_zero(tmp_path):
    root = write_folder(tmp_path / "a", classes=2)
    (root / "classes.txt").write_text("nothing\none\ntwo\n")
    dataset = ade20k(root, tmp_path, reduce_zero_label=False)
    assert dataset.split("train").classes == ("nothing", "one", "two")
    assert set(dataset.split("train").labels(0).unique().tolist()) == {0, 1, 2}


def test_class_names_as_ade20k_ships_them(tmp_path):
    root = write_folder(tmp_path / "a")
    (root / "classes.txt").unlink()
    assert ade20k(root, tmp_path).split("train").classes == tuple(str(n) for n in range(1, 151))
    assert ade20k(root, tmp_path, classes=3).split("train").classes == ("1", "2", "3")
    lines = [
        "Idx\tRatio\tTrain\tVal\tStuff\tName",
        "1\t0.15\t11664\t1172\t1\twall",
        "2\t0.1\t6046\t612\t1\tbig house, hall",
    ]
    (root / "objectInfo150.txt").write_text("\n".join([*lines, "3\t0.1\t8265\t796\t1\tsky\t"]))
    assert ade20k(root, tmp_path).split("train").classes == ("wall", "big house", "sky")
    with pytest.raises(InputError, match=r"names 3 classes and data\.classes says 7"):
        ade20k(root, tmp_path, classes=7)


def test_the_fingerprint_follows_content_and_meaning(tmp_path):
    first = ade20k(write_folder(tmp_path / "a"), tmp_path).fingerprint()
    assert ade20k(write_folder(tmp_path / "b"), tmp_path).fingerprint() == first, "the place does not matter"
    assert ade20k(tmp_path / "a", tmp_path, channels=1).fingerprint() != first
    path = tmp_path / "b" / "annotations" / "training" / "p 1.png"
    values = np.array(Image.open(path))
    values[0, 0] = 2
    Image.fromarray(values).save(path)
    changed = ade20k(tmp_path / "b", tmp_path)
    assert changed.fingerprint() != first
    assert changed.split("train").counts().sum() > 0


def test_what_was_examined_is_kept(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "a")
    first = ade20k(root, tmp_path).split("train").counts()
    monkeypatch.setattr(Ade20k, "_count_pixels", lambda self, pair: pytest.fail("examined again"))
    assert ade20k(root, tmp_path).split("train").counts().tolist() == first.tolist()
    for cached in (tmp_path / "cache").glob("ade20k-*.json"):
        cached.write_text("{damaged")
    with pytest.raises(pytest.fail.Exception):
        ade20k(root, tmp_path)


def spoil_folder(root):
    os.rename(root / "annotations" / "validation", root / "annotations" / "val")


def spoil_missing(root):
    (root / "annotations" / "training" / "p 2.png").unlink()


def spoil_size(root):
    Image.new("L", (56, 41), 1).save(root / "annotations" / "training" / "p 2.png")


def spoil_value(root):
    Image.new("L", (56, 40), 4).save(root / "annotations" / "training" / "p 2.png")


def spoil_colour(root):
    Image.new("RGB", (56, 40)).save(root / "annotations" / "training" / "p 2.png")


def spoil_annotation(root):
    (root / "annotations" / "training" / "p 2.png").write_bytes(b"nothing")


def spoil_image(root):
    (root / "images" / "training" / "p 2.png").write_bytes(b"nothing")


def spoil_names(root):
    (root / "classes.txt").write_bytes(b"\xff\xfe\xff")


def spoil_names_twice(root):
    (root / "classes.txt").write_text("a\na\nb\n")


def spoil_binary(root):
    for path in (root / "annotations" / "training").iterdir():
        Image.fromarray(np.uint8(255) * (np.array(Image.open(path)) > 0)).save(path)


def spoil_lossy(root):
    path = root / "annotations" / "training" / "p 2.png"
    Image.open(path).save(path, "JPEG")


def spoil_stem(root):
    path = root / "images" / "training" / "p 2.png"
    Image.open(path).save(path.with_suffix(".jpg"))


def spoil_empty(root):
    for path in (root / "images" / "validation").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_folder, r"has no annotations/validation: pass --set task\.data\.root=PATH"),
        (spoil_missing, r"1 of 4 images have no annotation of the same name.*images/training/p 2\.png"),
        (spoil_size, r"1 of 6 annotations under .* do not fit: .*p 2\.png has 56 x 41 px, its image 56 x 40"),
        (spoil_value, r"p 2\.png holds the value 4; 3 classes have values 1 to 3 \(data\.classes"),
        (spoil_colour, r"p 2\.png is an image of mode RGB, not grey"),
        (spoil_annotation, r"p 2\.png cannot be read"),
        (spoil_image, r"1 files under .* cannot be read: images/training/p 2\.png \(not an image"),
        (spoil_names, r"classes\.txt is UTF-16 or UTF-32 text; save it as UTF-8"),
        (spoil_names_twice, r"classes\.txt names the class 'a' twice"),
        (spoil_binary, r"no pixel of 4 annotations, such as .*p 0\.png, has a class: all have 0 or 255"),
        (spoil_lossy, r"p 2\.png is JPEG inside, not PNG"),
        (spoil_stem, r"p 2\.jpg and images/training/p 2\.png differ in their ending alone"),
        (spoil_empty, r"no images in .*validation"),
    ],
)
def test_bad_folders_are_named(spoil, words, tmp_path):
    root = write_folder(tmp_path / "a")
    spoil(root)
    with pytest.raises(InputError, match=words) as caught:
        ade20k(root, tmp_path)
    assert "\n" not in str(caught.value)


def test_annotations_without_an_image_are_noted(tmp_path):
    root = write_folder(tmp_path / "a")
    (root / "images" / "training" / "p 2.png").unlink()
    (note,) = ade20k(root, tmp_path).notes
    assert "1 of 4 annotations have no image of the same name" in note
    assert note.endswith("left out: annotations/training/p 2.png")


def test_kept_counts_that_were_altered_are_made_again(tmp_path):
    root = write_folder(tmp_path / "a")
    before = ade20k(root, tmp_path).split("train").counts()
    (cached,) = tmp_path.rglob("ade20k-*.json")
    content = cached.read_text()
    cached.write_text(content.replace(", 0]", ", 7]").replace("[40, 56", "[41, 56"))
    assert cached.read_text() != content
    assert torch.equal(ade20k(root, tmp_path).split("train").counts(), before)


def test_the_limit_of_pixels_can_be_chosen(tmp_path):
    root = write_folder(tmp_path / "a")
    before = ade20k(root, tmp_path).fingerprint()
    with pytest.raises(InputError, match=r"more than the 0\.001 million .* option max_pixels allows"):
        ade20k(root, tmp_path, max_pixels=1000)
    assert ade20k(root, tmp_path, max_pixels=10_000).fingerprint() == before


def test_class_names_of_any_editor(tmp_path):
    root = write_folder(tmp_path / "a")
    (root / "classes.txt").write_bytes("\ufeffa\r\nb\r\nc\r\n".encode())
    assert ade20k(root, tmp_path).split("train").classes == ("a", "b", "c")


@pytest.mark.parametrize("orientation", [3, 6])
def test_images_that_exif_turns_are_read_as_their_annotations_are(tmp_path, orientation):
    root = write_folder(tmp_path / "a")
    plain = ade20k(root, tmp_path)
    expected = LabelledImages(plain.split("train"), settings(), channels=1, seed=0).sample(0)
    path = root / "images" / "training" / "p 0.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.open(path)
    stored.save(path, exif=exif)
    dataset = ade20k(root, tmp_path)
    assert "1 images, such as 'images/training/p 0.png'" in dataset.notes[0]
    sample = LabelledImages(dataset.split("train"), settings(), channels=1, seed=0).sample(0)
    assert torch.equal(sample["inputs"], expected["inputs"])
    if orientation == 6:
        stored.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
        turned = ade20k(root, tmp_path)
        assert turned.notes == ()
        sample = LabelledImages(turned.split("train"), settings(), channels=1, seed=0).sample(0)
        assert torch.equal(sample["inputs"], expected["inputs"])


def test_a_root_is_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"ade20k needs task\.data\.root: pass --set task\.data\.root=PATH"):
        open_dataset("ade20k", {}, tmp_path)
    assert registry.datasets.load("ade20k") is Ade20k


def test_what_goes_bad_later_is_named(tmp_path):
    root = write_folder(tmp_path / "a")
    split = ade20k(root, tmp_path).split("train")
    spoil_value(root)
    with pytest.raises(RunError, match=r"cannot read the annotation .*p 2\.png.*holds the value 4"):
        split.labels(2)


def test_palette_and_16_bit_annotations_count_by_number(tmp_path):
    values = np.array([[0, 1], [2, 255]], np.uint8)
    palette = Image.fromarray(values, "P")
    palette.putpalette([255 - n // 3 for n in range(768)])
    palette.save(tmp_path / "p.png")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "w.png")
    for name in ("p.png", "w.png"):
        assert read_labels(tmp_path / name, 2, True).tolist() == [[255, 0], [1, 255]]


def images_of(root, tmp_path, seed=0, channels=1, **options):
    split = ade20k(root, tmp_path).split("train")
    return LabelledImages(split, settings(**options), channels=channels, seed=seed)


def test_image_and_labels_are_augmented_equally(tmp_path):
    """A pixel's brightness gives its label away; crop and flip must keep them together."""
    images = images_of(write_folder(tmp_path / "a"), tmp_path, crop_size=24, flip=0.5)
    places = set()
    for epoch in range(8):
        sample = images.sample(0, epoch)
        pixels, labels = sample["inputs"][0].long(), sample["data_samples"].gt_sem_seg.data[0]
        assert pixels.shape == labels.shape == (24, 24)
        torch.testing.assert_close(pixels, torch.where(labels == 255, 0, 60 * (labels + 1)))
        places.add(tuple(pixels.flatten().tolist()))
    assert len(places) > 4


def test_augmentation_depends_on_seed_epoch_and_index_only(tmp_path):
    root = write_folder(tmp_path / "a", mode="RGB")
    options = {"image_size": 40, "scale_jitter": (0.5, 2.0), "crop_size": 32, "flip": 0.5, "photometric": True}
    images = images_of(root, tmp_path, channels=3, most_of_crop=0.75, **options)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = images.sample(1, 5)["inputs"]
    images.sample(2, 5)
    torch.testing.assert_close(images.sample(1, 5)["inputs"], first, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()
    again = images_of(root, tmp_path, channels=3, most_of_crop=0.75, **options)
    assert torch.equal(again.sample(1, 5)["inputs"], first)
    for other in (images.sample(1, 6), images.sample(3, 5), images_of(root, tmp_path, 1, 3, **options).sample(1, 5)):
        assert other["inputs"].shape != first.shape or not torch.equal(other["inputs"], first)


def test_scale_jitter_draws_from_its_range(tmp_path):
    images = images_of(write_folder(tmp_path / "a"), tmp_path, image_size=20, scale_jitter=(0.5, 2.0))
    heights = [images.sample(0, epoch)["inputs"].shape[1] for epoch in range(20)]
    assert 10 <= min(heights) < 16
    assert 26 < max(heights) <= 40


def test_evaluation_resizes_the_image_but_not_its_labels(tmp_path):
    images = images_of(write_folder(tmp_path / "a"), tmp_path, seed=None, image_size=20)
    sample = images.sample(0)
    assert sample["inputs"].shape == (1, 20, 28)
    assert sample["data_samples"].gt_sem_seg.data.shape == (1, 40, 56)
    assert sample["data_samples"].ori_shape == (40, 56)


def test_colour_distortion_is_for_colour():
    names = [step["type"] for step in training_transforms(settings(photometric=True), 1)]
    assert names == []
    assert [step["type"] for step in training_transforms(settings(photometric=True), 3)] == ["PhotoMetricDistortion"]


def test_every_process_gets_its_share_of_whole_batches(tmp_path, monkeypatch):
    images = images_of(write_folder(tmp_path / "a", count=9), tmp_path)
    seen = []
    for rank in range(2):
        monkeypatch.setattr("mimbench_tasks.segmentation.data.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("mimbench_tasks.segmentation.data.get_world_size", lambda: 2)
        loader = images.training_loader(2, workers=0, pin_memory=False)
        assert len(loader) == 2
        seen += [index for pick in loader.sampler for index in pick.indices.tolist()]
    assert len(seen) == len(set(seen)) == 8


def test_images_of_several_sizes_are_evaluated_one_at_a_time(tmp_path):
    root = write_folder(tmp_path / "a")
    Image.new("L", (56, 44), 1).save(root / "annotations" / "training" / "p 2.png")
    Image.new("L", (56, 44), 60).save(root / "images" / "training" / "p 2.png")
    loader = images_of(root, tmp_path, seed=None).evaluation_loader(2, workers=0, pin_memory=False)
    assert [len(batch["inputs"]) for batch in loader] == [1, 1, 1, 1]
    (root / "images" / "training" / "p 2.png").unlink()
    (root / "annotations" / "training" / "p 2.png").unlink()
    loader = images_of(root, tmp_path, seed=None).evaluation_loader(2, workers=0, pin_memory=False)
    assert [len(batch["inputs"]) for batch in loader] == [2, 1]
