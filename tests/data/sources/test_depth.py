"""Depth scenes, whose depth can be guessed from the picture, and NYUv2 by path with its lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from mimbench.contract import InputError, RunError
from mimbench.data import open_dataset
from mimbench.data.sources.depth_scenes import DepthScenes, DepthScenesConfig
from mimbench.registry import datasets
from mimbench.testing.datasets import check_dataset

SMALL = {"train_scenes": 30, "test_scenes": 10}


def built(cache, **options):
    return DepthScenes(DepthScenesConfig(**{**SMALL, **options}), cache)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return built(tmp_path_factory.mktemp("cache"))


def objects(split, index):
    """Mask and depth of each digit; two never have the same millimetre."""
    depth = split.depth(index).numpy()
    return [(depth == value, float(value)) for value in np.unique(depth[depth > 0])]


def test_depth_is_that_of_the_digits_alone(scenes):
    for name, count in (("train", 30), ("test", 10)):
        split = scenes.split(name)
        assert len(split) == count
        for index in range(count):
            depth = split.depth(index)
            assert (depth.dtype, tuple(depth.shape)) == (torch.float32, (96, 96))
            assert set((depth > 0).unique().tolist()) == {False, True}, "the background has none"
            known = depth[depth > 0]
            assert 1.0 <= float(known.min()) <= float(known.max()) <= 4.0 < split.max_depth


def heights(split):
    """Height of each digit that nothing covers or cuts, in px, and its depth."""
    sizes = []
    for index in range(len(split)):
        parts = objects(split, index)
        for mask, depth in parts:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            inner = rows[0] > 0 and rows[-1] < 95 and columns[0] > 0 and columns[-1] < 95
            if inner:
                sizes.append((rows[-1] - rows[0] + 1, depth))
    return np.array(sizes, dtype=float)


def test_a_guess_by_size_beats_a_constant_by_far(tmp_path):
    """Depth shows in the picture: height alone is an oracle; a constant is right for a third of the digits."""
    dataset = built(tmp_path, train_scenes=120, test_scenes=60)
    train, test = heights(dataset.split("train")), heights(dataset.split("test"))
    slope = np.median(np.log(train[:, 1]) + np.log(train[:, 0]))
    by_size, constant = np.exp(slope) / test[:, 0], np.median(train[:, 1])

    def delta1(guess):
        return 100 * np.mean(np.maximum(guess / test[:, 1], test[:, 1] / guess) < 1.25)

    assert delta1(by_size) > 75
    assert delta1(constant) < 45
    assert delta1(by_size) - delta1(constant) > 35
    rmse = [np.sqrt(np.mean((guess - test[:, 1]) ** 2)) for guess in (by_size, constant)]
    assert rmse[0] < 0.6 * rmse[1]


def test_near_digits_cover_far_ones(tmp_path):
    """Where boxes overlap, the far digit is the one that lost ink."""
    split = built(tmp_path, digits=(8, 8), train_scenes=40).split("train")
    covered = 0
    for index in range(40):
        parts = sorted(objects(split, index), key=lambda part: part[1])
        for position, (near, _) in enumerate(parts):
            for far, _ in parts[position + 1 :]:
                rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
                window = far[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                covered += bool(window.any())
    assert covered > 10, "digits overlap, so that order is a cue"


def test_position_and_brightness_hardly_show_depth(tmp_path):
    split = built(tmp_path, train_scenes=150).split("train")
    rows, brightness, depths = [], [], []
    for index in range(150):
        with Image.open(split.image(index)) as image:
            pixels = np.asarray(image, dtype=float)
        for mask, depth in objects(split, index):
            rows.append(np.flatnonzero(mask.any(1)).mean())
            brightness.append(pixels[mask].mean())
            depths.append(depth)
    assert len(depths) > 400
    assert abs(np.corrcoef(rows, depths)[0, 1]) < 0.2
    assert abs(np.corrcoef(brightness, depths)[0, 1]) < 0.3, "thin strokes of far digits are a little darker"


def test_deterministic_and_sensitive_to_every_option(scenes, tmp_path):
    again = built(tmp_path)
    assert again.fingerprint() == scenes.fingerprint()
    for index in (0, 9):
        assert again.split("test").image(index).read_bytes() == scenes.split("test").image(index).read_bytes()
        assert torch.equal(again.split("test").depth(index), scenes.split("test").depth(index))
    changes = ({"seed": 1}, {"size": 80}, {"digits": (2, 3)}, {"distance": (1, 3)}, {"scale": 1.5}, {"test_scenes": 9})
    assert len({built(tmp_path, **options).fingerprint() for options in changes} | {again.fingerprint()}) == 7
    more = built(tmp_path, train_scenes=31).split("train")
    assert more.image(3).read_bytes() == scenes.split("train").image(3).read_bytes()


def test_a_lost_file_is_built_again(scenes):
    path = scenes.split("test").image(2)
    before = path.read_bytes()
    path.unlink()
    assert DepthScenes(scenes.config, scenes.cache).split("test").image(2).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"digits": (5, 2)}, "two rising numbers from 1"),
        ({"distance": (4, 1)}, "two rising numbers from 0.1 to 60 m"),
        ({"scale": 4.0}, "do not fit into 96 px"),
        ({"distance": (1, 50)}, "smaller than a quarter"),
    ],
)
def test_impossible_scenes(options, words):
    with pytest.raises(ValidationError, match=words):
        DepthScenesConfig(**options)


def test_a_validation_share_of_depth(tmp_path):
    dataset = open_dataset("depth-scenes", {**SMALL, "validation_share": 0.2}, tmp_path)
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test), train.max_depth) == (24, 6, 5.0)
    assert test.image(0).parent.name == "train"
    assert test.depth(0).shape == test.shape(0)


def write_nyu(root, *, train="nyu_train.txt", test="nyu_test.txt"):
    rng = np.random.default_rng(0)
    for name, count in ((train, 3), (test, 2)):
        lines = []
        for number in range(count):
            folder = root / ("kitchen_0001a" if name == train else "test/bathroom")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(folder / f"rgb_{number:05d}.jpg")
            depth = np.full((6, 8), 1500 + 1000 * number, np.uint16)
            depth[0] = 0
            depth[1] = 20_000
            Image.fromarray(depth).save(folder / f"sync_depth_{number:05d}.png")
            place = folder.relative_to(root)
            lines.append(f"/{place}/rgb_{number:05d}.jpg /{place}/sync_depth_{number:05d}.png 518.8579")
        lines.append(f"/{place}/rgb_{number:05d}.jpg None 518.8579")
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def nyu(root, tmp_path, **options):
    return open_dataset("nyu", {"root": str(root), **options}, tmp_path / "cache")


def test_nyu_is_read_by_its_lists(tmp_path):
    dataset = nyu(write_nyu(tmp_path / "a"), tmp_path)
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test), train.shape(0)) == (3, 2, (6, 8))
    assert train.depth(1)[2].tolist() == [2.5] * 8
    assert train.depth(1)[:2].unique().tolist() == [0.0], "no reading, and beyond max_depth"
    assert any("1 lines of nyu_train.txt have no depth" in note for note in dataset.notes)
    official = write_nyu(
        tmp_path / "b", train="nyudepthv2_train_files_with_gt.txt", test="nyudepthv2_test_files_with_gt.txt"
    )
    assert nyu(official, tmp_path).fingerprint() == dataset.fingerprint(), "names of lists do not matter"
    assert nyu(official, tmp_path, max_depth=30.0).fingerprint() != dataset.fingerprint()
    assert nyu(official, tmp_path, max_depth=30.0).split("train").depth(0)[1].unique().tolist() == [20.0]


def spoil_missing(root):
    (root / "kitchen_0001a" / "sync_depth_00001.png").unlink()


def spoil_image(root):
    (root / "kitchen_0001a" / "rgb_00001.jpg").write_bytes(b"nothing")


def spoil_depth(root):
    path = root / "kitchen_0001a" / "sync_depth_00001.png"
    path.write_bytes(path.read_bytes()[:40])


def spoil_size(root):
    Image.fromarray(np.ones((7, 8), np.uint16)).save(root / "kitchen_0001a" / "sync_depth_00001.png")


def spoil_line(root):
    (root / "nyu_train.txt").write_text("kitchen_0001a/rgb_00001.jpg\n")


def spoil_list(root):
    (root / "nyu_test.txt").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_missing, r"1 of 10 files that the lists name do not exist in .*: kitchen_0001a/sync_depth_00001\.png"),
        (spoil_image, r"1 files under .* cannot be read: kitchen_0001a/rgb_00001\.jpg"),
        (spoil_depth, r"1 files under .* cannot be read: kitchen_0001a/sync_depth_00001\.png"),
        (spoil_size, r"1 of 3 depths do not fit: kitchen_0001a/sync_depth_00001\.png is 8 x 7 px, its image 8 x 6 px"),
        (spoil_line, r"line 1 of .*nyu_train\.txt is .*; it needs an image and its depth"),
        (spoil_list, r"there is no nyu_test\.txt or nyudepthv2_test_files_with_gt\.txt in"),
    ],
)
def test_bad_files_are_named_in_one_line(spoil, words, tmp_path):
    root = write_nyu(tmp_path / "a")
    spoil(root)
    with pytest.raises(InputError, match=words) as caught:
        nyu(root, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_depth_that_went_bad_later_is_named(tmp_path):
    dataset = nyu(write_nyu(tmp_path / "a"), tmp_path)
    spoil_depth(tmp_path / "a")
    with pytest.raises(RunError, match=r"cannot read the depth .*sync_depth_00001\.png"):
        dataset.split("train").depth(1)


def test_they_pass_the_checks_of_a_dataset(tmp_path):
    root = write_nyu(tmp_path / "a")
    for name, options in (("nyu", {"root": str(root)}), ("depth-scenes", SMALL)):
        results = check_dataset(datasets.load(name), options, cache=tmp_path / "cache")
        bad = [result for result in results if result.status not in ("passed", "skipped")]
        assert bad == [], name
        plugin = datasets.load(name)
        assert plugin.published_sizes(plugin.Config()).train in (24_231, 800)
