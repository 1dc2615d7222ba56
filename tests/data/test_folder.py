"""Image folders: layouts, labels, bad files, fingerprints."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from mimbench.data.folder import Folder, FolderConfig
from mimbench.data.vision import ImageNet, ImageNetConfig
from mimbench.errors import InputError, RunError


def put(path, value=0, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path, format="PNG")


def spoil(path):
    path.write_bytes(path.read_bytes()[:40])


def fill(root, **counts):
    """counts: images a folder; __ stands for /."""
    for number, (folder, count) in enumerate(counts.items()):
        for index in range(count):
            put(root / folder.replace("__", "/") / f"{index}.png", 20 * number + index)
    return root


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


def opened(root, cache, **options):
    return Folder(FolderConfig(root=root, **options), cache)


def names(dataset, split):
    part = dataset.split(split)
    return {part.path(index).relative_to(dataset.root).as_posix() for index in range(len(part))}


@pytest.mark.parametrize("test_folder", ["val", "test", "Validation"])
def test_train_and_val_folders(root, cache, test_folder):
    fill(root, train__cat=3, train__dog=2, **{f"{test_folder}__cat": 1, f"{test_folder}__dog": 2})
    dataset = opened(root, cache)
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (5, 3)
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    image, label = test[2]
    assert image.shape == (3, 4, 6)
    assert int(image[0, 0, 0]) == 61
    assert label == 1


def test_val_is_preferred_to_test(root, cache):
    fill(root, train__cat=3, val__cat=1, test__cat=2)
    assert names(opened(root, cache), "test") == {"val/cat/0.png"}


@pytest.mark.parametrize("under", ["", "train__"])
def test_one_folder_is_split_by_seed_and_stratified(root, cache, under):
    fill(root, **{f"{under}cat": 10, f"{under}dog": 20, f"{under}lone": 1})
    dataset = opened(root, cache, val_fraction=0.2)
    train, test = names(dataset, "train"), names(dataset, "test")
    assert not train & test
    assert len(train | test) == 31
    assert dataset.split("test").labels.bincount().tolist() == [2, 4]
    assert names(opened(root, cache), "test") == test
    assert names(opened(root, cache, split_seed=1), "test") != test


def test_a_class_called_train_among_others_is_a_class(root, cache):
    fill(root, train=3, bus=3)
    assert opened(root, cache).classes == ("bus", "train")


def test_images_without_class_folders_provide_images_only(root, cache):
    fill(root, **{".": 5})
    dataset = opened(root, cache)
    assert dataset.provides == {"images"}
    assert dataset.classes == ("unlabelled",)
    assert len(dataset.split("train")) == 4
    assert dataset.split("test").labels.tolist() == [0]


def test_real_folders_are_untidy(root, cache, tmp_path):
    fill(root, **{"Größe 1": 2, "猫": 2, "deep__er__still": 2})
    (root / "empty").mkdir()
    (root / ".hidden").mkdir()
    put(root / ".hidden" / "x.png")
    put(root / "Größe 1" / "._x.png")
    put(root / "Größe 1" / "a picture, with spaces.txt")
    (root / "Größe 1" / "notes.txt").write_text("no image")
    put(tmp_path / "elsewhere" / "linked.png")
    (root / "far").symlink_to(tmp_path / "elsewhere")
    (root / "猫" / "link.png").symlink_to(tmp_path / "elsewhere" / "linked.png")
    (root / "猫" / "loop").symlink_to(root / "猫")
    put(root / os.fsdecode(b"latin-\xe9") / "x.png")
    dataset = opened(root, cache)
    assert [os.fsencode(name) for name in dataset.classes] == [
        os.fsencode(name) for name in ("Größe 1", "deep", "far", os.fsdecode(b"latin-\xe9"), "猫")
    ]
    found = names(dataset, "train") | names(dataset, "test")
    assert len(found) == 2 + 1 + 2 + 1 + 1 + 2 + 1
    assert "Größe 1/a picture, with spaces.txt" in found
    assert "猫/link.png" in found
    for split in map(dataset.split, ("train", "test")):
        assert all(split[index][0].shape == (3, 4, 6) for index in range(len(split)))


def test_a_class_in_val_that_train_lacks_keeps_labels_right(root, cache):
    fill(root, train__b=2, train__d=2, val__a=1, val__d=1)
    dataset = opened(root, cache)
    assert dataset.classes == ("a", "b", "d")
    assert dataset.split("train").labels.tolist() == [1, 1, 2, 2]
    assert dataset.split("test").labels.tolist() == [0, 2]


def test_one_channel_where_asked(root, cache):
    fill(root, cat=3)
    dataset = opened(root, cache, channels=1)
    assert dataset.channels == 1
    assert dataset.split("train")[0][0].shape == (1, 4, 6)


def test_bad_images_are_found_up_front_or_skipped(root, cache):
    fill(root, cat=6, dog=6)
    for name in ("cat/1.png", "cat/3.png", "dog/2.png"):
        spoil(root / name)
    (root / "dog" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    with pytest.raises(InputError) as caught:
        opened(root, cache)
    message = str(caught.value)
    assert "4 of 13 images are unreadable" in message
    assert "cat/1.png (" in message
    assert "and 1 more" in message
    assert "--set data.on_bad_image=skip" in message
    assert "\n" not in message
    dataset = opened(root, cache, on_bad_image="skip")
    assert len(dataset.split("train")) + len(dataset.split("test")) == 9
    assert sorted(path.name for path in dataset.skipped) == ["1.png", "2.png", "3.png", "gone.jpg"]
    (note,) = dataset.notes
    assert note.startswith(f"skipped 4 of 13 images, unreadable, under {root}: cat/1.png (")
    assert note.endswith(" and 1 more")


def test_a_repaired_image_counts_again(root, cache):
    fill(root, cat=3)
    spoil(root / "cat" / "0.png")
    with pytest.raises(InputError, match="1 of 3 images is unreadable"):
        opened(root, cache)
    put(root / "cat" / "0.png")
    assert (opened(root, cache).skipped, opened(root, cache).notes) == ([], ())


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.write_text("file"), "is not a folder"),
        (lambda root: root.mkdir(), "no images in"),
        (lambda root: fill(root, train__cat=2) and (root / "val").mkdir(), "no images in .*val"),
        (lambda root: fill(root, **{"cat": 2, ".": 1}), "both in class folders and beside them"),
        (lambda root: fill(root, train__cat=2, val=2), "sort both into class folders"),
        (lambda root: fill(root, cat=1), "add more"),
        (lambda root: [spoil(p) for p in fill(root, train__a=1, val__a=1).rglob("*.png")], "every train image"),
    ],
)
def test_folders_that_cannot_be_used(root, cache, arrange, message):
    arrange(root)
    with pytest.raises(InputError, match=message):
        opened(root, cache, on_bad_image="skip")


def test_root_must_be_given(cache):
    with pytest.raises(InputError, match=r"folder needs data\.root: pass --set data.root=PATH"):
        Folder(FolderConfig(), cache)


def test_an_image_that_vanishes_later_is_named(root, cache):
    fill(root, cat=3)
    split = opened(root, cache).split("train")
    split.path(0).unlink()
    with pytest.raises(RunError, match=str(split.path(0))):
        split[0]


def test_fingerprint_is_of_the_content_not_the_place(root, cache, tmp_path):
    fill(root, train__cat=2, train__dog=2, val__cat=1)
    first = opened(root, cache).fingerprint()
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    (moved / "val").rename(moved / "test")
    assert opened(moved, tmp_path / "other").fingerprint() == first
    assert opened(root, cache, channels=1).fingerprint() != first
    put(moved / "train" / "cat" / "0.png", 200)
    assert opened(moved, cache).fingerprint() != first
    (root / "train" / "cat" / "0.png").rename(root / "train" / "dog" / "9.png")
    assert opened(root, cache).fingerprint() != first


def test_fingerprint_follows_the_split_and_leaves_out_the_skipped(root, cache):
    fill(root, cat=10)
    first = opened(root, cache).fingerprint()
    assert opened(root, cache, split_seed=1).fingerprint() != first
    (root / "cat" / "z.png").write_bytes(b"broken")
    assert opened(root, cache, on_bad_image="skip").fingerprint() == first


def test_fingerprint_by_names_opens_nothing(root, cache):
    fill(root, cat=4)
    options = {"fingerprint": "names", "verify": False}
    first = opened(root, cache, **options).fingerprint()
    content = (root / "cat" / "0.png").read_bytes()
    (root / "cat" / "0.png").write_bytes(bytes(len(content)))
    assert opened(root, cache, **options).fingerprint() == first
    assert not cache.exists()
    (root / "cat" / "0.png").write_bytes(content + b"x")
    assert opened(root, cache, **options).fingerprint() != first


def test_unchanged_files_are_examined_once(root, cache, monkeypatch):
    fill(root, cat=4)
    expected = opened(root, cache).fingerprint()
    seen = []
    monkeypatch.setattr("mimbench.data.listing.problem", lambda content: seen.append(content))
    assert opened(root, cache).fingerprint() == expected
    assert seen == []
    put(root / "cat" / "2.png", 99)
    opened(root, cache)
    assert len(seen) == 1
    next(cache.glob("images-*.json")).write_text("{damaged")
    assert opened(root, cache).fingerprint() != expected
    assert len(seen) == 5


def test_an_unwritable_cache_is_named(root, tmp_path):
    fill(root, cat=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*MIMBENCH_CACHE"):
        opened(root, tmp_path / "file" / "cache")


def test_imagenet_layout_and_how_to_get_it(root, cache):
    def imagenet(**options):
        return ImageNet(ImageNetConfig(root=root, **options), cache)

    with pytest.raises(InputError, match=r"image-net\.org/download"):
        imagenet(download=True)
    fill(root, train__n01=2, train__n02=2)
    with pytest.raises(InputError, match="wants train/ and val/"):
        imagenet()
    fill(root, val=2)
    with pytest.raises(InputError, match="no class folders"):
        imagenet()
    shutil.rmtree(root / "val")
    fill(root, val__n01=1, val__n02=1)
    dataset = imagenet()
    assert dataset.classes == ("n01", "n02")
    assert np.array_equal(dataset.split("test").labels, [0, 1])
    assert len(dataset.fingerprint()) == 64
