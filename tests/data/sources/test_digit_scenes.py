"""Digit scenes: a deterministic, honest detection set, built once and kept whole."""

import hashlib
import json
import multiprocessing

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pydantic import ValidationError

from mimbench.data.sources.coco import coco_split
from mimbench.data.sources.digit_drawing import Glyphs, compose
from mimbench.data.sources.digit_scenes import DigitScenes, ScenesConfig
from mimbench.data.sources.embedded import EmbeddedConfig, MNIST5k
from mimbench.errors import InputError

SMALL = {"train_scenes": 30, "test_scenes": 10}


def built(cache, **options):
    return DigitScenes(ScenesConfig(**{**SMALL, **options}), cache)


def content(split):
    return split.annotations.read_text(), [path.read_bytes() for path in sorted(split.images.iterdir())]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return built(tmp_path_factory.mktemp("cache"))


def test_coco_reads_it(scenes, capsys):
    for name, count in (("train", 30), ("test", 10)):
        split = scenes.split(name)
        coco = COCO(str(split.annotations))
        assert len(coco.imgs) == count == len(list(split.images.iterdir()))
        assert split.classes == tuple(coco.cats[key]["name"] for key in sorted(coco.cats)) == tuple("0123456789")
        for image in coco.imgs.values():
            with Image.open(split.images / image["file_name"]) as opened:
                assert (opened.mode, opened.size) == ("L", (image["width"], image["height"]))
            assert 1 <= len(coco.imgToAnns[image["id"]]) <= 7


def test_boxes_are_tight_around_disjoint_masks(scenes, capsys):
    coco = COCO(str(scenes.split("train").annotations))
    for image in coco.imgs:
        masks = [coco.annToMask(annotation) for annotation in coco.imgToAnns[image]]
        assert np.sum(masks, axis=0).max() == 1
        for annotation, mask in zip(coco.imgToAnns[image], masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
            assert annotation["bbox"] == [columns[0], rows[0], width, height]
            assert annotation["area"] == mask.sum() > 0


def test_every_digit_stays_mostly_visible_under_real_overlap():
    digits = np.zeros((10, 28, 28), np.uint8)
    digits[:, 4:24, 6:22] = 255
    glyphs = Glyphs.cut(digits, np.arange(10))
    scenes = [compose(np.random.RandomState(seed), glyphs, 64, (5, 5), (0.8, 1.2)) for seed in range(40)]
    shares = [instance.visible.sum() / instance.ink for scene in scenes for instance in scene.instances]
    assert min(shares) >= 0.6
    assert np.mean(np.array(shares) < 1) > 0.1


def test_deterministic_and_sensitive_to_every_option(scenes, tmp_path):
    again = built(tmp_path)
    assert again.fingerprint() == scenes.fingerprint()
    assert content(again.split("test")) == content(scenes.split("test"))
    for options in ({"seed": 1}, {"size": 80}, {"digits": (1, 2)}, {"scale": (1, 1.2)}, {"test_scenes": 11}):
        assert built(tmp_path, **options).fingerprint() != scenes.fingerprint()
    more = built(tmp_path, train_scenes=31).split("train")
    assert content(more)[1][:30] == content(scenes.split("train"))[1]


def test_train_and_test_scenes_come_from_disjoint_digits(tmp_path, monkeypatch):
    used, cut = [], Glyphs.cut
    monkeypatch.setattr(Glyphs, "cut", lambda images, labels: used.append(images) or cut(images, labels))
    built(tmp_path).split("train")
    digits = MNIST5k(EmbeddedConfig(), tmp_path)
    for images, name in zip(used, ("train", "test"), strict=True):
        assert np.array_equal(images, digits.split(name).images[:, 0])


def _build(cache, results):
    results.put(content(built(cache).split("train")))


def test_two_processes_build_once(tmp_path):
    context = multiprocessing.get_context("forkserver")
    results = context.Queue()
    processes = [context.Process(target=_build, args=(tmp_path, results)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = results.get(timeout=60), results.get(timeout=60)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert first == second
    assert len(list(tmp_path.glob("digit-scenes-*/"))) == 1


def alter_labels_and_manifest(split):
    """Whoever alters a label in the cache may alter its digest, too."""
    manifest = split.annotations.with_name("manifest.json")
    before = hashlib.sha256(split.annotations.read_bytes()).hexdigest()
    split.annotations.write_text(split.annotations.read_text().replace('"category_id": 2', '"category_id": 1'))
    after = hashlib.sha256(split.annotations.read_bytes()).hexdigest()
    assert before in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(before, after))


def test_a_whole_cache_is_reused_and_a_damaged_one_rebuilt(tmp_path):
    split = built(tmp_path).split("train")
    expected = content(split)
    image = split.images / "000003.png"
    written = image.stat().st_mtime_ns
    built(tmp_path).split("train")
    assert image.stat().st_mtime_ns == written
    damages = [
        lambda: image.write_bytes(image.read_bytes()[:-10]),
        image.unlink,
        lambda: split.annotations.write_text("{}"),
        lambda: (split.images.parent / "manifest.json").write_text("not json"),
        lambda: alter_labels_and_manifest(split),
    ]
    for damage in damages:
        damage()
        assert content(built(tmp_path).split("train")) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [({"digits": (3, 2)}, "digits"), ({"scale": (2, 1)}, "scale"), ({"scale": (1, 4)}, "do not fit into 96 px")],
)
def test_impossible_scenes_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        ScenesConfig(**options)


def test_coco_by_path_names_what_is_wrong(tmp_path):
    annotations = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"image folder .* does not exist"):
        coco_split(annotations, tmp_path / "none")
    with pytest.raises(InputError, match=r"cannot read .*a\.json: No such file"):
        coco_split(annotations, tmp_path)
    for text, message in (("{", "not a COCO"), ("{}", "holds no images"), ("[]", "not a COCO")):
        annotations.write_text(text)
        with pytest.raises(InputError, match=message):
            coco_split(annotations, tmp_path)
    categories = [{"id": 7, "name": "b"}, {"id": 2, "name": "a"}]
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    images = [{"id": 5, "file_name": "a.png", "height": 8, "width": 8}]
    objects = [{"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 1, 2, 2], "area": 4}]
    annotations.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    assert coco_split(annotations, tmp_path).classes == ("a", "b")
