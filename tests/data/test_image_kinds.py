"""Every real kind of image file comes out as upright uint8 pixels."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mimbench.data.images import is_image, problem, read_pixels

RED = (200, 30, 30)


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
    pixels = read_pixels(saved(tmp_path / f"x.{suffix}", image), channels)
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


def test_floats_of_either_range(tmp_path):
    unit = Image.fromarray(np.array([[0, 0.2, 1]], np.float32))
    assert read_pixels(saved(tmp_path / "a.tiff", unit), 1).ravel().tolist() == [0, 51, 255]
    byte = Image.fromarray(np.array([[0, 51, 300]], np.float32))
    assert read_pixels(saved(tmp_path / "b.tiff", byte), 1).ravel().tolist() == [0, 51, 255]


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
