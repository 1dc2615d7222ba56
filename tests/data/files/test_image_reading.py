"""Every real kind of image file comes out as upright uint8 pixels."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from helpers.tiffs import tiff
from mimbench.data.files.image_inspection import inspect_image
from mimbench.data.files.image_reading import MAX_PIXELS, PixelPolicy, TooManyPixels, is_image, read_pixels

RED = (200, 30, 30)
FLOATS = PixelPolicy(float_range=(0, 255))


def problem(content, max_pixels=MAX_PIXELS):
    return inspect_image(BytesIO(content), max_pixels).problem


def saved(path, image, **options):
    image.save(path, **options)
    return path


def colour(path, channels=3):
    return read_pixels(path, channels)[0, 0].tolist()


def near(colour, expected, tolerance=3):
    return np.abs(np.array(colour, int) - expected).max() <= tolerance


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_gives_the_channels_asked_for(mode, channels, tmp_path):
    image = Image.new("RGB", (5, 3), RED)
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(np.full((3, 5), 100, {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    else:
        image = image.convert(mode)
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "tiff"
    pixels = read_pixels(saved(tmp_path / f"x.{suffix}", image), channels, FLOATS)
    assert pixels.shape == (3, 5, channels)
    assert pixels.dtype == np.uint8


def test_grey_is_the_same_in_every_channel(tmp_path):
    assert colour(saved(tmp_path / "x.png", Image.new("L", (2, 2), 77))) == [77, 77, 77]


def test_transparent_pixels_show_white(tmp_path):
    assert colour(saved(tmp_path / "a.png", Image.new("RGBA", (2, 2), (0, 0, 0, 0)))) == [255, 255, 255]
    assert near(colour(saved(tmp_path / "b.png", Image.new("RGBA", (2, 2), (0, 0, 0, 128)))), 127)
    assert colour(saved(tmp_path / "c.png", Image.new("LA", (2, 2), (0, 0))), channels=1) == [255]
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([*RED, 0, 0, 0])
    assert colour(saved(tmp_path / "d.png", palette)) == list(RED)
    assert colour(saved(tmp_path / "e.png", palette, transparency=0)) == [255, 255, 255]
    assert colour(saved(tmp_path / "f.png", Image.new("RGB", (2, 2), RED), transparency=RED)) == [255, 255, 255]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    wide = Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))
    assert read_pixels(saved(tmp_path / "x.png", wide), 1).ravel().tolist() == [0, 100, 255]
    assert read_pixels(saved(tmp_path / "x.tiff", wide), 1).ravel().tolist() == [0, 100, 255]


def grey(path, policy):
    return read_pixels(path, 1, policy).ravel().tolist()


def test_floats_need_a_range_of_their_set(tmp_path):
    unit = saved(tmp_path / "a.tiff", Image.fromarray(np.array([[0, 0.2, 1]], np.float32)))
    assert grey(unit, PixelPolicy(float_range=(0, 1))) == [0, 51, 255]
    assert grey(unit, FLOATS) == [0, 0, 1]
    assert grey(unit, PixelPolicy(range=(0, 0.4))) == [0, 128, 255]
    with pytest.raises(ValueError, match="the range of its values is not known"):
        read_pixels(unit, 1)
    byte = saved(tmp_path / "b.tiff", Image.fromarray(np.array([[0, 51, 300]], np.float32)))
    with pytest.raises(ValueError, match="its values, 0 to 300, leave the range of 0 to 255"):
        read_pixels(byte, 1, FLOATS)
    assert grey(byte, PixelPolicy(range=(0, 102))) == [0, 128, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_a_problem(value, tmp_path):
    path = saved(tmp_path / "x.tiff", Image.fromarray(np.array([[0, 0.5, value]], np.float32)))
    assert "not finite" in problem(path.read_bytes())
    with pytest.raises(ValueError, match="not finite"):
        read_pixels(path, 1, PixelPolicy(range=(0, 1)))


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (np.array([[-1000, 0, 1000]], np.int16), "signed 16-bit"),
        (np.array([[-1000, 0, 1000]], np.int32), "32-bit"),
        (np.array([[-100, 0, 100]], np.int8), "signed 8-bit"),
        (np.array([[0, 2**31, 2**32 - 1]], np.uint32), "unsigned 32-bit"),
    ],
)
def test_signed_and_long_integers_keep_their_values(stored, kind, tmp_path):
    path = tmp_path / "x.tif"
    tiff(path, stored)
    seen = inspect_image(BytesIO(path.read_bytes()), MAX_PIXELS)
    assert (seen.problem, seen.kind, seen.low, seen.high) == (None, kind, stored.min(), stored.max())
    assert near(grey(path, PixelPolicy(range=(int(stored.min()), int(stored.max())))), [0, 128, 255], tolerance=1)
    with pytest.raises(ValueError, match="leave the range of 0 to"):
        read_pixels(path, 1)


def test_colours_of_sixteen_bits_keep_their_depth_under_a_range(tmp_path):
    import cv2

    stored = np.zeros((2, 3, 3), np.uint16)
    stored[0, 0] = (1000, 2000, 4000)
    for name in ("x.png", "x.tiff"):
        path = tmp_path / name
        cv2.imwrite(str(path), stored[..., ::-1])
        seen = inspect_image(BytesIO(path.read_bytes()), MAX_PIXELS)
        assert (seen.kind, seen.low, seen.high) == ("16-bit colour", 0, 4095)
        assert read_pixels(path, 3, PixelPolicy(range=(0, 4000)))[0, 0].tolist() == [64, 128, 255]
        assert colour(path) == [3, 7, 15]


def test_bytes_are_stretched_under_a_range_and_transparency_is_not(tmp_path):
    image = saved(tmp_path / "x.png", Image.fromarray(np.array([[0, 8, 16]], np.uint8)))
    assert grey(image, PixelPolicy(range=(0, 16))) == [0, 128, 255]
    clear = saved(tmp_path / "y.png", Image.new("RGBA", (2, 2), (0, 8, 16, 0)))
    assert colour(clear) == [255, 255, 255]
    policy = PixelPolicy(range=(0, 16), transparency="drop")
    assert read_pixels(clear, 3, policy)[0, 0].tolist() == [0, 128, 255]


LEVELS = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: np.rot90,
}
"""What each orientation makes of the stored pixels."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("policy", [PixelPolicy(), PixelPolicy(range=(0, 65535))])
def test_turned_tiffs_are_upright_however_they_are_stored(orientation, compressed, policy, tmp_path):
    path, upright = tmp_path / "x.tif", TURNS[orientation](LEVELS)
    wide = LEVELS.astype(np.uint16) * 257
    for stored in (wide, np.stack([wide] * 3, axis=-1), *([] if policy.range else [LEVELS])):
        tiff(path, stored, t274=orientation, compressed=compressed)
        np.testing.assert_array_equal(read_pixels(path, 1, policy)[..., 0], upright)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("policy", [PixelPolicy(float_range=(0, 1)), PixelPolicy(range=(0, 1))])
def test_negatives_are_shown_as_positives(compressed, policy, tmp_path):
    path = tmp_path / "x.tif"
    tiff(path, (LEVELS / 255).astype(np.float32), t262=0, compressed=compressed)
    np.testing.assert_array_equal(read_pixels(path, 1, policy)[..., 0], 255 - LEVELS)
    if policy.range is None:
        for stored in (LEVELS, LEVELS.astype(np.uint16) * 257):
            tiff(path, stored, t262=0, compressed=compressed)
            np.testing.assert_array_equal(read_pixels(path, 1, policy)[..., 0], 255 - LEVELS)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (np.int16, {"order": "big", "compressed": True}),
        (np.int32, {"order": "big", "compressed": True}),
        (np.float32, {"order": "big", "compressed": True}),
        (np.uint16, {"planar": True}),
    ],
)
def test_tiffs_that_pillow_misreads_are_refused(dtype, options, tmp_path):
    path, policy = tmp_path / "x.tif", PixelPolicy(range=(0, 240))
    stored = np.stack([LEVELS] * 3, axis=-1) if "planar" in options else LEVELS
    tiff(path, stored.astype(dtype), **options)
    assert "which is not read: save it" in problem(path.read_bytes())
    with pytest.raises(ValueError, match="which is not read: save it"):
        read_pixels(path, 1, policy)
    tiff(path, stored.astype(dtype), **options | {"order": "little", "planar": False})
    assert near(read_pixels(path, 1, policy)[..., 0], np.round(LEVELS * (255 / 240)), tolerance=1)


def test_deep_colours_of_jpeg_2000_are_refused(tmp_path):
    import cv2

    path = tmp_path / "x.jp2"
    for stored, refused in ((np.uint16(0xFFFF), True), (np.uint8(255), False)):
        cv2.imwrite(str(path), np.full((64, 64, 3), stored))
        assert ("JPEG 2000 image in colours of more than 8 bits" in (problem(path.read_bytes()) or "")) == refused
    assert colour(path) == [255, 255, 255]


def test_bands_of_no_declared_meaning_are_not_taken_for_transparency(tmp_path):
    stored = np.full((4, 4, 4), 100, np.uint8)
    stored[..., 3] = 0
    for name, tags in {"undeclared": {}, "unspecified": {"t338": 0}}.items():
        path = tmp_path / f"{name}.tif"
        tiff(path, stored, **tags)
        assert inspect_image(BytesIO(path.read_bytes()), MAX_PIXELS).extra_bands
        with pytest.raises(ValueError, match="bands beyond its colours"):
            read_pixels(path, 3)
        assert read_pixels(path, 3, PixelPolicy(extra_bands="drop"))[0, 0].tolist() == [100, 100, 100]
    declared = tmp_path / "alpha.tif"
    tiff(declared, stored, t338=2)
    assert inspect_image(BytesIO(declared.read_bytes()), MAX_PIXELS).transparent == "whole"
    assert colour(declared) == [255, 255, 255]


def test_images_beyond_the_limit_are_not_decoded(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.png", Image.new("1", (100, 90)))
    assert problem(path.read_bytes(), 9000) is None
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    assert "100 x 90 px" in problem(path.read_bytes(), 8999)
    with pytest.raises(TooManyPixels, match="more than"):
        read_pixels(path, 1, PixelPolicy(max_pixels=8999))


def test_formats_that_start_other_programs_are_not_read(tmp_path):
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nquit\n"
    path = tmp_path / "x.png"
    path.write_bytes(script)
    assert not is_image(path)
    assert "PostScript" in problem(script)
    with pytest.raises(OSError, match="cannot identify"):
        read_pixels(path, 3)


def test_cmyk_is_seen_in_its_colours(tmp_path):
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert near(colour(saved(tmp_path / "x.jpg", cyan, quality=95)), (0, 255, 255), tolerance=12)


def test_exif_rotation_is_applied_and_damaged_exif_ignored(tmp_path):
    pixels = np.zeros((2, 4), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise: the first pixel goes to the top right
    upright = read_pixels(saved(tmp_path / "x.png", Image.fromarray(pixels), exif=exif), 1)[..., 0]
    assert upright.shape == (4, 2)
    assert upright[0, 1] == 255
    broken = saved(tmp_path / "y.jpg", Image.new("L", (4, 2)), exif=b"Exif\x00\x00garbage")
    assert read_pixels(broken, 1).shape == (2, 4, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (8000, 6000)])
def test_extreme_sizes(size, tmp_path):
    path = saved(tmp_path / "x.jpg", Image.new("RGB", size, RED))
    assert problem(path.read_bytes()) is None
    pixels = read_pixels(path, 3)
    assert pixels.shape == (size[1], size[0], 3)
    assert near(pixels[-1, -1], RED)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (3, 3), colour) for colour in (RED, (0, 0, 0))]
    path = saved(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert near(colour(path), RED)


def test_content_decides_not_the_extension(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (3, 3), RED).save(path, format="JPEG")
    assert near(colour(path), RED)
    note = tmp_path / "note.txt"
    note.write_text("not an image")
    assert is_image(path)
    assert not is_image(note)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_files_have_a_problem_whole_ones_none(kind):
    buffer = BytesIO()
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, format=kind)
    whole = buffer.getvalue()
    assert problem(whole) is None
    for share in (0.01, 0.3, 0.9):
        assert problem(whole[: int(len(whole) * share)])


def test_problems_are_named():
    assert problem(b"") == "empty file"
    assert problem(b"hello, world") == "not an image that can be read"
