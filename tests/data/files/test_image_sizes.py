"""Sizes of images, and pixels as stored or as EXIF turns them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as rle

from helpers.tiffs import tiff
from mimbench.contract import InputError
from mimbench.data.files import image_sizes
from mimbench.data.files.image_sizes import (
    ImageSize,
    find_inside,
    match_size,
    read_image_size,
    read_image_sizes,
    read_sized,
)
from mimbench.data.sources.boxes import checked_mask, mask_area
from mimbench.files import FileState


def save(path, orientation):
    """An image of 4 x 2 px, each of another value."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.arange(8, dtype=np.uint8).reshape(2, 4) * 30)
    image.save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))
    return image


@pytest.mark.parametrize("suffix", ["png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_of_the_size_that_is_asked_for(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    image = save(path, orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("L"))
    raster = read_image_size(path)
    assert raster.upright == upright.shape[::-1]
    np.testing.assert_array_equal(read_sized(path, 1, raster.stored)[..., 0], np.asarray(image))
    if raster.upright != raster.stored:
        np.testing.assert_array_equal(read_sized(path, 1, raster.upright)[..., 0], upright)
    assert match_size(raster, raster.stored, path) == ("either" if orientation in (2, 3, 4) else "stored")
    assert match_size(raster, (3, 3), path) is None
    with pytest.raises(InputError, match="its annotations are for 3 x 3 px"):
        read_sized(path, 1, (3, 3))


def test_kept_headers_that_were_altered_are_read_again(tmp_path):
    save(tmp_path / "a.png", 1)
    expected = read_image_sizes(["a.png"], tmp_path, tmp_path / "cache")
    (store,) = (tmp_path / "cache").glob("rasters-*.json")
    before = store.read_bytes()
    store.write_bytes(before.replace(b", 4, 2, 1]", b", 4, 4, 1]"))
    assert store.read_bytes() != before
    assert read_image_sizes(["a.png"], tmp_path, tmp_path / "cache") == expected


def test_turned_tiff_files_are_refused(tmp_path):
    save(tmp_path / "a.tif", 6)
    save(tmp_path / "b.tif", 1)
    headers = read_image_sizes(["a.tif", "b.tif"], tmp_path, tmp_path / "cache")
    assert headers == {"a.tif": "TIFF with the orientation 6; save it upright", "b.tif": ImageSize((4, 2))}


def test_exif_data_after_the_pixels_of_a_png(tmp_path):
    path = tmp_path / "a.png"
    save(path, 6)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:start] + content[start + length : end] + content[start : start + length] + content[end:])
    assert read_image_size(path).orientation == 1
    assert match_size(read_image_size(path), (2, 4), path) == "upright"
    assert read_sized(path, 1, (2, 4)).shape == (4, 2, 1)
    assert read_sized(path, 1, (4, 2)).shape == (2, 4, 1)


def test_headers_are_kept_until_a_file_changes(tmp_path, monkeypatch):
    save(tmp_path / "a.png", 6)
    (tmp_path / "b.png").write_bytes(b"nothing")
    first = read_image_sizes(["a.png", "b.png", "c.png"], tmp_path, tmp_path / "cache")
    assert first["a.png"] == ImageSize((4, 2), 6)
    assert first["b.png"] == "it is not an image that can be read"
    assert first["c.png"] == "No such file or directory"
    monkeypatch.setattr("mimbench.data.files.cache.MIN_AGE", -(10**12))
    with monkeypatch.context() as patched:
        patched.setattr(
            "mimbench.data.files.image_sizes.read_image_size", lambda path, limit: pytest.fail("read again")
        )
        assert read_image_sizes(["a.png"], tmp_path, tmp_path / "cache") == {"a.png": ImageSize((4, 2), 6)}
    Image.new("L", (5, 5)).save(tmp_path / "a.png")
    assert read_image_sizes(["a.png"], tmp_path, tmp_path / "cache") == {"a.png": ImageSize((5, 5), 1)}
    for store in (tmp_path / "cache").glob("rasters-*.json"):
        store.write_text("[")
    assert read_image_sizes(["a.png"], tmp_path, tmp_path / "cache") == {"a.png": ImageSize((5, 5), 1)}


def test_a_file_that_changed_just_before_it_was_examined_is_read_again(tmp_path, monkeypatch):
    save(tmp_path / "a.png", 1)
    read_image_sizes(["a.png"], tmp_path, tmp_path / "cache")
    read = []
    original = image_sizes.read_image_size
    monkeypatch.setattr(image_sizes, "read_image_size", lambda *args: read.append(args) or original(*args))
    assert read_image_sizes(["a.png"], tmp_path, tmp_path / "cache") == {"a.png": ImageSize((4, 2))}
    assert len(read) == 1


@pytest.mark.parametrize(
    "name", ["/a.png", "../a.png", "b/../../a.png", "..\\a.png", "C:/a.png", "\\\\host\\a\\b", ".."]
)
def test_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="is absolute or holds"):
        find_inside(name, tmp_path)


@pytest.mark.parametrize("name", [None, "", 5, ["a"]])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(ValueError, match="is no file name"):
        find_inside(name, tmp_path)


def test_a_backslash_may_be_part_of_a_name(tmp_path):
    (tmp_path / "a\\b.png").touch()
    assert find_inside("a\\b.png", tmp_path) == "a\\b.png"


def test_compressed_masks_are_checked_as_pycocotools_reads_them():
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(1, 90, 2)
        mask = np.asfortranarray((rng.random((height, width)) < rng.random() ** 2).astype(np.uint8))
        encoded = rle.encode(mask)
        text = {"size": [int(height), int(width)], "counts": encoded["counts"].decode()}
        assert checked_mask(text, (int(width), int(height))) == (text, None)
        assert mask_area(text, (int(width), int(height))) == mask.sum()
        for size in ((int(width) + 1, int(height)), (int(width), int(height) + 1)):
            with pytest.raises(ValueError, match="counts do not cover"):
                checked_mask({**text, "size": [size[1], size[0]]}, size)


def test_images_that_could_not_be_read_later_are_refused_by_their_header(tmp_path):
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nquit\n")
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    tiff(tmp_path / "float.tif", np.ones((2, 4), np.float32))
    tiff(tmp_path / "bands.tif", np.ones((2, 4, 4), np.uint8))
    tiff(tmp_path / "planar.tif", np.ones((2, 4, 3), np.uint16), planar=True)
    words = {
        "eps.png": "not an image that can be read",
        "large.png": "more than the 64 million pixels",
        "float.tif": "float image, and the range of its values is not known",
        "bands.tif": "bands beyond its colours",
        "planar.tif": "which is not read: save it by pixels",
    }
    headers = read_image_sizes(list(words), tmp_path, tmp_path / "cache")
    assert {name: words[name] in str(header) for name, header in headers.items()} == dict.fromkeys(words, True)


def test_a_link_to_another_file_of_equal_size_and_dates_is_read_again(tmp_path, monkeypatch):
    for name, size in (("wide", (4, 2)), ("tall", (2, 4))):
        Image.new("L", size).save(tmp_path / f"{name}.bmp")
    link = tmp_path / "link.bmp"
    real = FileState.if_there
    monkeypatch.setattr(FileState, "if_there", lambda path: FileState(1, 2, 3, *real(path)[3:]))
    for name, size in (("wide", (4, 2)), ("tall", (2, 4))):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / f"{name}.bmp")
        assert read_image_sizes(["link.bmp"], tmp_path, tmp_path / "cache") == {"link.bmp": ImageSize(size)}
