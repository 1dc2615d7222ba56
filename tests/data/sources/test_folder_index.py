"""The index of an image folder: a second opening lists nothing, and every change of the folder is noticed."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from PIL import Image

from mimbench.data.files import tree_state
from mimbench.data.files.tree_state import TreeState
from mimbench.data.sources import folder_index
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig
from mimbench.data.sources.folder_scan import FolderScan
from mimbench.data.sources.vision import ImageNet, ImageNetConfig

CLASSES, IMAGES = 20, 60


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    """2,400 files of a few bytes, which nothing opens with verify=false and fingerprint=names."""
    root = tmp_path / "images"
    for part in ("train", "val"):
        for label in range(CLASSES):
            folder = root / part / f"class{label:02}"
            folder.mkdir(parents=True)
            for index in range(IMAGES):
                (folder / f"{index}.jpg").write_bytes(b"x" * (1 + index % 7))
    return root


@pytest.fixture
def scans(monkeypatch):
    """The folders that were scanned; every file counts as old enough."""
    monkeypatch.setattr(tree_state, "MIN_AGE", -1)
    names = []
    read = FolderScan.read
    monkeypatch.setattr(FolderScan, "read", lambda self, folder: names.append(folder.name) or read(self, folder))
    return names


def opened(root, cache, **options):
    return Folder(FolderConfig(root=root, **{"verify": False, "fingerprint": "names", **options}), cache)


def content(dataset):
    parts = {name: dataset.split(name) for name in ("train", "test")}
    return {
        "fingerprint": dataset.fingerprint(),
        "classes": dataset.classes,
        "notes": dataset.notes,
        "facts": dataset.facts,
        "provides": dataset.provides,
        "skipped": dataset.skipped,
        "policy": parts["train"].policy,
        **{name: [(part.path(i), int(part.labels[i])) for i in range(len(part))] for name, part in parts.items()},
    }


def test_a_second_opening_lists_nothing(root, cache, scans, monkeypatch):
    first = content(opened(root, cache))
    assert scans == ["train", "val"]
    assert len(first["train"]) == CLASSES * IMAGES

    def refuse(*_):
        raise AssertionError("a folder was listed")

    monkeypatch.setattr(os, "scandir", refuse)
    second = opened(root, cache)
    assert content(second) == first
    assert scans == ["train", "val"]


def add(root):
    (root / "train" / "class03" / "new.jpg").write_bytes(b"x")


def remove(root):
    (root / "val" / "class03" / "4.jpg").unlink()


def rename(root):
    (root / "train" / "class00" / "0.jpg").rename(root / "train" / "class00" / "a.jpg")


def grow(root):
    (root / "train" / "class00" / "0.jpg").write_bytes(b"longer than before")


def rewrite_under_the_same_date_and_size(root):
    path = root / "train" / "class19" / "5.jpg"
    before = path.stat()
    path.write_bytes(b"y" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_under_the_same_date_and_size(root):
    path, other = root / "train" / "class19" / "5.jpg", root.parent / "other"
    before = path.stat()
    other.write_bytes(b"z" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def add_a_class(root):
    (root / "train" / "class20").mkdir()


def turn_a_text_into_an_image(root):
    Image.new("L", (2, 2)).save(root / "train" / "class01" / "notes", format="PNG")


@pytest.mark.parametrize(
    "change",
    [
        *(add, remove, rename, grow, rewrite_under_the_same_date_and_size, replace_under_the_same_date_and_size),
        *(add_a_class, turn_a_text_into_an_image),
    ],
)
def test_every_change_is_noticed(root, cache, scans, change):
    (root / "train" / "class01" / "notes").write_text("no image")
    before = content(opened(root, cache))
    time.sleep(0.02)  # file systems count time in steps of a few ms
    change(root)
    after = content(opened(root, cache))
    assert scans == ["train", "val"] * 2
    assert after == content(opened(root, cache.with_name("empty")))
    assert (after == before) == (change in (rewrite_under_the_same_date_and_size, replace_under_the_same_date_and_size))


def test_a_changed_target_of_a_link_is_noticed(root, cache, scans):
    target = root.parent / "elsewhere.jpg"
    target.write_bytes(b"x")
    (root / "train" / "class00" / "link.jpg").symlink_to(target)
    (root / "train" / "class00" / "broken.jpg").symlink_to(root / "nowhere")
    (root / "train" / "class00" / "loop").symlink_to(root / "train")
    before = content(opened(root, cache))
    assert content(opened(root, cache)) == before
    assert len(scans) == 2
    target.write_bytes(b"longer")
    assert content(opened(root, cache))["fingerprint"] != before["fingerprint"]


def test_what_is_not_part_of_the_data_may_change(root, cache, scans):
    (root / "other").mkdir()
    opened(root, cache)
    (root / "other" / "file.jpg").write_bytes(b"x")
    opened(root, cache)
    assert len(scans) == 2


def test_a_folder_that_was_just_written_is_read_again(root, cache, scans, monkeypatch):
    monkeypatch.setattr(tree_state, "MIN_AGE", 3_600_000_000_000)
    assert content(opened(root, cache)) == content(opened(root, cache))
    assert len(scans) == 4


def test_dates_in_the_future_are_no_reason_to_read_again(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    ahead = time.time() + 1e6
    os.utime(tmp_path / "a", (ahead, ahead))
    tree = TreeState.read(tmp_path, [tmp_path])
    assert sorted(tree.names) == [b"", b"a"]
    later = TreeState(tree.examined + 10_000_000_000, tree.names, tree.states)
    assert later.is_current(tmp_path)
    assert not tree.is_current(tmp_path)


def test_each_choice_of_options_and_class_has_an_index(root, cache, scans):
    opened(root, cache)
    opened(root, cache, channels=1)
    ImageNet(ImageNetConfig(root=root), cache)
    assert len(scans) == 6
    assert len(list(cache.glob("folder-*.index"))) == 3
    opened(root, cache, decode="scaled")
    assert len(scans) == 6


def test_a_damaged_index_is_written_again(root, cache, scans):
    first = content(opened(root, cache))
    (index,) = cache.glob("folder-*.index")
    whole = index.read_bytes()
    index.write_bytes(whole[:-100] + b"?" + whole[-99:])
    assert content(opened(root, cache)) == first
    assert len(scans) == 4
    assert index.read_bytes() != whole[:-100] + b"?" + whole[-99:]
    assert content(opened(root, cache)) == first
    assert len(scans) == 4


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(root, tmp_path, scans):
    (tmp_path / "file").write_text("")
    assert len(opened(root, tmp_path / "file" / "cache").split("train")) == CLASSES * IMAGES


def test_small_folders_have_no_index(root, cache, scans):
    part = root / "train"
    assert len(opened(part / "class00", cache).split("train")) == 48
    assert not list(cache.glob("folder-*.index"))


@pytest.mark.parametrize("labelled", [True, False])
def test_what_was_decided_about_the_pixels_is_kept(tmp_path, cache, scans, monkeypatch, labelled):
    monkeypatch.setattr(folder_index, "INDEX_FROM", 1)
    root = tmp_path / "floats"
    for index in range(6):
        path = root / ("ab"[index % 2] if labelled else "") / f"{index}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((5, 4), 0.1 * index, np.float32)).save(path)
    (path.parent / "spoilt.png").write_bytes(b"no image")
    (path.parent / ".hidden").write_text("")
    options = {"verify": True, "fingerprint": "content", "on_bad_image": "skip", "transparency": "drop"}
    first, second = opened(root, cache, **options), opened(root, cache, **options)
    assert len(scans) == 1
    assert content(first) == content(second)
    assert second.skipped
    assert second.notes
    assert second.split("train").policy.float_range == (0, 1)
    assert second.provides == ({"images", "labels"} if labelled else {"images"})
    image, other = first.split("train")[0][0], second.split("train")[0][0]
    assert image.equal(other)
