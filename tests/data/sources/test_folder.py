"""Image folders: layouts, labels, bad files, fingerprints."""

import hashlib
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from mimbench.data.files import listing
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig
from mimbench.data.sources.vision import ImageNet, ImageNetConfig
from mimbench.errors import InputError, RunError
from mimbench.files import FileState


def put(path, value=0, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (value, value, value))
    image.putpixel((size[0] - 1, size[1] - 1), (255, 255, 255))  # so that the set uses its whole range
    image.save(path, format="PNG")


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
    file_names = names(dataset, "train") | names(dataset, "test")
    assert len(file_names) == 2 + 1 + 2 + 1 + 1 + 2 + 1
    assert "Größe 1/a picture, with spaces.txt" in file_names
    assert "猫/link.png" in file_names
    for split in map(dataset.split, ("train", "test")):
        assert all(split[index][0].shape == (3, 4, 6) for index in range(len(split)))


def test_a_class_that_only_val_has_keeps_labels_right(root, cache):
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
        (lambda root: fill(root, **{"cat": 2, ".": 1}), "both in class folders and next to them"),
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


@pytest.fixture
def examined(monkeypatch):
    """Every file that is examined, as long as its times are taken to be exact."""
    seen = []
    examine = listing._examine
    monkeypatch.setattr(listing, "_examine", lambda path, *more: seen.append(path.name) or examine(path, *more))
    monkeypatch.setattr("mimbench.data.files.cache.MIN_AGE", -(10**12))
    return seen


def test_unchanged_files_are_examined_once(root, cache, examined):
    fill(root, cat=4)
    expected = opened(root, cache).fingerprint()
    assert len(examined) == 4
    assert opened(root, cache).fingerprint() == expected
    assert len(examined) == 4
    put(root / "cat" / "2.png", 99)
    changed = opened(root, cache).fingerprint()
    assert changed != expected
    assert len(examined) == 5
    cached_list = next(cache.glob("images-*.json"))
    digest = hashlib.sha256((root / "cat" / "1.png").read_bytes()).hexdigest()
    for altered in ("{damaged", cached_list.read_text().replace(digest, "0" * 64)):
        assert altered != cached_list.read_text()
        cached_list.write_text(altered)
        assert opened(root, cache).fingerprint() == changed
    assert len(examined) == 13


def swap(path, content):
    """Another file of the same size and date in the place of the first."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(content)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def rewrite(path, content):
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [swap, rewrite])
def test_a_file_of_the_same_size_and_date_is_noticed(root, cache, change, examined):
    fill(root, cat=3)
    first = opened(root, cache).fingerprint()
    path = root / "cat" / "1.png"
    content = path.read_bytes()
    put(path, 200)
    assert path.stat().st_size == len(content)
    bright = path.read_bytes()
    rewrite(path, content)
    assert opened(root, cache).fingerprint() == first
    examined.clear()
    change(path, bright)
    assert opened(root, cache).fingerprint() != first
    assert examined == ["1.png"]


def test_a_file_that_changed_just_before_it_was_examined_is_examined_again(root, cache, monkeypatch):
    fill(root, cat=3)
    first = opened(root, cache).fingerprint()
    path = root / "cat" / "1.png"
    content = path.read_bytes()
    put(path, 200)
    # A file system whose times are too coarse to show the change.
    real = FileState.if_there
    state = real(path)
    monkeypatch.setattr(FileState, "if_there", lambda one: state if one == path else real(one))
    bright = opened(root, cache).fingerprint()
    assert bright != first
    path.write_bytes(content)
    assert opened(root, cache).fingerprint() == first


def test_names_of_classes_match_however_unicode_writes_them(root, cache):
    for form, part in (("NFC", "train"), ("NFD", "val")):
        for number, name in enumerate(("café", "piñata")):
            for index in range(2):
                put(root / part / unicodedata.normalize(form, name) / f"{index}.png", 50 * number)
    dataset = opened(root, cache)
    assert dataset.classes == ("café", "piñata")
    assert dataset.split("test").labels.tolist() == [0, 0, 1, 1]
    put(root / "train" / unicodedata.normalize("NFD", "café") / "2.png")
    with pytest.raises(InputError, match=r"two class folders of the name 'café'.*'caf\\xe9'.*merge or rename"):
        opened(root, cache)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        *[("Bar", "bar"), ("bar ", "bar"), ("snow leopard", "snow_leopard"), ("bar.", "bar"), ("a–b", "a-b")],
        *[("ﬁsh", "fish"), ("ba\ufe0fr", "bar")],
    ],
)
def test_names_of_classes_that_nearly_match_are_refused(root, cache, train, val):
    fill(root, train__dog=1, val__dog=1, **{f"train__{train}": 1})
    put(root / "val" / val / "0.png")
    with pytest.raises(InputError, match=f"class '{train}' of .*train and class '{val}' of .*val differ only in case"):
        opened(root, cache)


def test_classes_of_one_split_only_are_noted(root, cache):
    fill(root, train__b=2, train__c=2, val__a=1, val__b=3)
    first, second = opened(root, cache).notes
    assert first.startswith("class 'a' is only in ")
    assert first.endswith("every prediction for 1 of 4 test images is wrong")
    assert second == f"class 'c' is only in {root}/train: no test image measures it"


def test_classes_that_differ_only_in_case_are_two(root, cache):
    fill(root, train__A=2, train__a=2, val__A=1, val__a=1)
    dataset = opened(root, cache)
    assert dataset.classes == ("A", "a")
    assert dataset.notes == (
        "classes 'A', 'a' differ only in case, blanks, dashes, dots at the end or invisible characters; each counts as "
        "a separate class",
    )


@pytest.mark.parametrize("sign", ["\u200b", "\u200d", "\ufeff", "\u00ad", "\u200f"])
def test_invisible_characters_make_no_other_class(root, cache, sign):
    fill(root, train__dog=1, val__dog=1, train__cat=1, **{f"val__ca{sign}t": 1})
    with pytest.raises(InputError, match="invisible characters"):
        opened(root, cache)


def test_folders_that_are_not_read_are_noted(root, cache):
    fill(root, train__a=1, train__b=1, val__a=1, test__a=1, extra__b=1)
    (first, _) = opened(root, cache).notes
    assert first == "left out the folders next to train and test: 'extra', 'test'"


def test_a_class_of_several_folders_is_noted(root, cache):
    fill(root, animals__cat=2, animals__dog=2, plants=2)
    (note,) = opened(root, cache).notes
    assert note.startswith("1 class folders hold images only in folders of their own")
    assert "'animals'" in note


def test_a_link_to_itself_is_an_unreadable_image(root, cache):
    fill(root, a=2, b=2)
    (root / "a" / "loop.png").symlink_to("loop.png")
    (root / "a" / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"1 of 5 images is unreadable .*a/loop\.png"):
        opened(root, cache)
    assert len(opened(root, cache, on_bad_image="skip").skipped) == 1


def test_splits_without_a_common_class_are_refused(root, cache):
    fill(root, train__a=1, val__b=1)
    with pytest.raises(InputError, match="share no class"):
        opened(root, cache)


def test_what_is_left_out_is_counted(root, cache):
    fill(root, cat=4, dog=4)
    before = opened(root, cache).fingerprint()
    (root / "empty").mkdir()
    (root / "cat" / "Thumbs.db").write_bytes(b"no image")
    (root / "cat" / "nothing.jpg").write_bytes(b"")
    put(root / "dog" / ".ipynb_checkpoints" / "0-checkpoint.png")
    put(root / "__MACOSX" / "cat" / "0.png")
    dataset = opened(root, cache)
    assert dataset.fingerprint() == before
    files, folders = dataset.notes
    assert files.startswith(f"left out 4 hidden, empty or other files that are no images under {root}: ")
    assert folders == "left out 1 folders without images: 'empty'"
    for form in ("NFC", "NFD"):
        put(root / "cat" / unicodedata.normalize(form, "ö.png"))
    assert "1 names of train images occur twice" in opened(root, cache).notes[-1]


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
