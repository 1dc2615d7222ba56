"""Ranges of stored values: one for a whole set, stated, recorded, and noted if the set uses little of it."""

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from helpers.tiffs import tiff
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig
from mimbench.errors import InputError, RunError


def put(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def ramp(low, high, dtype):
    return np.linspace(low, high, 64).reshape(8, 8).astype(dtype)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


def opened(root, **options):
    return Folder(FolderConfig(root=root, **options), root.parent / "cache")


def fill(root, ending, low, high, dtype):
    for part in ("train", "val"):
        for name in "ab":
            for index in range(2):
                put(root / part / name / f"{index}.{ending}", ramp(low, high, dtype))
    return root


def spread(dataset, split="train"):
    pixels = dataset.split(split)[0][0]
    return int(pixels.min()), int(pixels.max())


@pytest.mark.parametrize(
    ("stored", "advice"),
    [
        (("png", 0, 255, np.uint16), "[0,255]"),
        (("png", 0, 4095, np.uint16), "[0,4095]"),
        (("png", 0, 16383, np.uint16), "[0,16383]"),
        (("png", 0, 16, np.uint8), "[0,31]"),
        (("tif", 20000, 30000, np.uint16), "[20000,30000]"),
        (("tif", 0, 12, np.float32), "[0,12]"),
        (("tif", 0, 0.06, np.float32), "[0,0.06]"),
    ],
)
def test_a_small_part_of_the_range_is_noted(root, stored, advice):
    dataset = opened(fill(root, *stored))
    (note,) = dataset.notes
    assert "use a small part of the range" in note
    assert f"--set data.range={advice}" in note
    low, high = (float(value) for value in advice.strip("[]").split(","))
    wide = opened(root, range=(low, high))
    assert wide.notes == ()
    assert spread(wide)[1] - spread(wide)[0] > spread(dataset)[1] - spread(dataset)[0]
    assert wide.fingerprint() != dataset.fingerprint()


@pytest.mark.parametrize("stored", [("png", 0, 255, np.uint8), ("png", 0, 65535, np.uint16), ("tif", 0, 1, np.float32)])
def test_a_set_that_uses_its_range_gets_no_note(root, stored):
    dataset = opened(fill(root, *stored))
    assert dataset.notes == ()
    assert spread(dataset) == (0, 255)


def test_a_single_split_that_uses_a_small_part_is_noted(root):
    fill(root, "png", 0, 65535, np.uint16)
    for name in "ab":
        for index in range(2):
            put(root / "val" / name / f"{index}.png", ramp(0, 1023, np.uint16))
    (note,) = opened(root).notes
    assert note.startswith("4 16-bit images of the test split under")
    assert "--set data.range=[0,1023]" in note


def test_a_few_bright_pixels_do_not_hide_a_small_part(root):
    values = ramp(0, 4095, np.uint16).repeat(16, 0).repeat(16, 1)
    for index in range(4):
        values[0, index] = 65535
        put(root / "a" / f"{index}.png", values)
    assert "--set data.range=[0,4095]" in opened(root).notes[0]


@pytest.mark.parametrize(
    "stored", [(-1024, 3000, np.int32), (-3, 3, np.float32), (0, 3504, np.float32), (0, 100000, np.int32)]
)
def test_values_outside_of_what_the_format_implies_need_a_range(root, stored):
    fill(root, "tif", *stored)
    with pytest.raises(InputError, match=r"hold values from .* train/a/0\.tif.*--set data\.range=\["):
        opened(root)
    dataset = opened(root, range=stored[:2])
    assert dataset.notes == ()
    assert spread(dataset) == spread(dataset, "test") == (0, 255)


def test_what_a_range_clips_is_counted(root):
    fill(root, "tif", 0, 4000, np.uint16)
    put(root / "val" / "b" / "x.tif", ramp(0, 5000, np.uint16))
    (note,) = opened(root, range=(0, 4095)).notes
    assert note.startswith("1 of 9 16-bit images")
    assert "data.range = [0,4095] (all together 0 to 5000), which are clipped" in note


def test_floats_share_one_range_over_both_splits(root):
    fill(root, "tif", 0, 250, np.float32)
    first = opened(root).fingerprint()
    dim = root / "val" / "b" / "dim.tif"
    put(dim, ramp(0, 1, np.float32))
    dataset = opened(root)
    test = dataset.split("test")
    place = next(index for index in range(len(test)) if test.path(index) == dim)
    assert int(test[place][0].max()) == 1
    assert dataset.fingerprint() != first
    assert dataset.notes[0].startswith("1 of 9 images")
    assert "float images without values above 1, such as val/b/dim.tif, while others go beyond" in dataset.notes[0]
    assert dataset.facts["kinds"]["float"] == {"images": 9, "values": [0, 250], "range": [0, 255]}


def test_floats_that_resizing_took_a_little_beyond_one_are_not_black(root):
    dataset = opened(fill(root, "tif", -0.001, 1.001, np.float32))
    assert spread(dataset) == (0, 255)


def test_floats_that_nobody_looked_at_are_refused(root):
    fill(root, "tif", 0, 1, np.float32)
    with pytest.raises(RunError, match="the range of its values is not known"):
        opened(root, verify=False).split("train")[0]
    assert spread(opened(root, verify=False, range=(0, 1))) == (0, 255)


def test_one_range_for_several_kinds_is_noted(root):
    fill(root, "png", 0, 4095, np.uint16)
    put(root / "train" / "a" / "x.png", ramp(0, 255, np.uint8))
    assert "images of several kinds (8 16-bit and 1 8-bit)" in opened(root, range=(0, 4095)).notes[-1]


def test_transparency_bands_and_pages_are_noted(root):
    fill(root, "png", 0, 255, np.uint8)
    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    clear.save(root / "train" / "a" / "clear.png")
    frames = [Image.fromarray(ramp(0, 255, np.uint8))] * 2
    frames[0].save(root / "train" / "a" / "pages.tif", save_all=True, append_images=frames[1:])
    first, second = opened(root).notes
    assert first.startswith("1 of 10 images")
    assert "1 of them as a whole" in first
    assert "1 of 10 images" in second
    assert "several pages" in second
    assert opened(root, transparency="drop").fingerprint() != opened(root).fingerprint()
    tiff(root / "train" / "a" / "bands.tif", np.full((4, 4, 4), 200, np.uint8))
    with pytest.raises(InputError, match=r"bands\.tif \(it has bands beyond its colours.*data\.extra_bands=drop"):
        opened(root)
    clear, _, bands = opened(root, extra_bands="drop").notes
    assert clear.startswith("1 of 11 images")
    assert "have bands beyond their colours, which are dropped" in bands


def test_the_limit_of_pixels_holds_and_can_be_raised(root):
    fill(root, "png", 0, 255, np.uint8)
    put(root / "train" / "a" / "large.png", np.tile(ramp(0, 255, np.uint8), (2, 2)))
    for _ in range(2):
        with pytest.raises(InputError, match=r"large\.png \(it has 16 x 16 px, more than.*data\.max_pixels=N"):
            opened(root, max_pixels=255)
    assert opened(root, max_pixels=256).fingerprint() == opened(root).fingerprint()
    with pytest.raises(InputError, match="large"):
        opened(root, max_pixels=255)


def test_a_set_of_one_value_gets_no_range_that_would_be_refused(root):
    (note,) = opened(fill(root, "png", 7, 7, np.uint8)).notes
    assert "hold the one value 7 alone" in note
    with pytest.raises(InputError, match=r"--set data\.range=\[-5,-4\]"):
        opened(fill(root.with_name("dark"), "tif", -5, -5, np.float32))


def test_cmyk_of_sixteen_bits_takes_no_range(root):
    fill(root, "png", 0, 255, np.uint8)
    tiff(root / "train" / "a" / "print.tif", np.full((4, 4, 4), 20000, np.uint16), t262=5)
    assert "16-bit CMYK" in opened(root).facts["kinds"]
    with pytest.raises(InputError, match=r"CMYK of 16 bits, which 1 images .*print\.tif: leave data\.range out"):
        opened(root, range=(0, 255))


def test_values_that_are_not_finite_name_the_file(root):
    fill(root, "tif", 0, 1, np.float32)
    values = ramp(0, 1, np.float32)
    values[0, 0] = np.inf
    put(root / "train" / "a" / "bad.tif", values)
    with pytest.raises(InputError, match=r"train/a/bad\.tif \(it holds values that are not finite"):
        opened(root)


@pytest.mark.parametrize(
    "value", ["all", [3, 3], [5, 1], [1], [0, 1, 2], ["a", "b"], [0, float("inf")], [0, 10**400], [-1e308, 1e308]]
)
def test_ranges_that_are_none_are_refused(value):
    with pytest.raises(ValidationError, match="auto or two rising numbers"):
        FolderConfig(range=value)
