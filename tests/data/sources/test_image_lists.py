"""Images by text files that list them: VTAB-1k's files, their parts, and what is wrong with them in one line."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from mimbench.data import open_dataset
from mimbench.errors import InputError

LISTS = {"train800": range(8), "val200": range(8, 10), "train800val200": range(10), "test": range(10, 16)}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "vtab" / "svhn"
    for name, numbers in LISTS.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text("".join(f"images/{n} a.png {n % 3}\n" for n in numbers))
    (folder / "images").mkdir()
    for number in range(16):
        Image.new("RGB", (6, 5), (number, 0, 0)).save(folder / "images" / f"{number} a.png")
    return folder


def test_lists_become_splits_and_parts(root, tmp_path):
    dataset = open_dataset("image-lists", {"root": root}, tmp_path / "cache")
    assert dataset.parts == ("train", "test", "fit", "validation")
    assert {part: len(dataset.split(part)) for part in dataset.parts} == {
        "train": 10,
        "test": 6,
        "fit": 8,
        "validation": 2,
    }
    image, label = dataset.split("test")[3]
    assert (image.shape, image[0, 0, 0], label) == ((3, 5, 6), 13, 1)
    assert dataset.split("train").classes == ("0", "1", "2")
    assert dataset.split("validation").labels.tolist() == [2, 0]
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert open_dataset("image-lists", {"root": moved}, tmp_path / "cache").fingerprint() == dataset.fingerprint()
    (moved / "test.txt").write_text("images/10 a.png 2\n")
    assert open_dataset("image-lists", {"root": moved}, tmp_path / "cache").fingerprint() != dataset.fingerprint()
    (moved / "val200.txt").unlink()
    assert open_dataset("image-lists", {"root": moved}, tmp_path / "cache").parts == ("train", "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"test\.txt does not exist"),
        ("images/1 a.png\n", r"line 1 of .*test\.txt is not PATH LABEL: 'images/1 a\.png'"),
        ("images/1 a.png 0\nimages/2 a.png one\n", r"line 2 of .*test\.txt is not PATH LABEL"),
        ("\n", r"test\.txt lists no images"),
        ("images/99.png 1\n", r"1 of the 1 images of .*test\.txt do not exist, such as images/99\.png"),
    ],
)
def test_wrong_lists_are_one_line(content, message, root, tmp_path):
    (root / "test.txt").unlink()
    if content is not None:
        (root / "test.txt").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        open_dataset("image-lists", {"root": root}, tmp_path)
    assert "\n" not in str(caught.value)
