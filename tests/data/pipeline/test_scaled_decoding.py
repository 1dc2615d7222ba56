"""data.decode=scaled: JPEGs decoded at reduced sides give the crops of full decoding, nearly."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mimbench.contract import DataChoice, InputConfig, View
from mimbench.data.files.image_reading import DEFAULT_POLICY, read_pixels, read_reduced
from mimbench.data.pipeline.loading import training_loader
from mimbench.data.pipeline.subsets import training_images
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig
from mimbench.data.sources.vision import ImageNet, ImageNetConfig

CPU = torch.device("cpu")
INPUT = InputConfig(image_size=32, crop_scale=(0.3, 1.0), crop_ratio=(0.75, 1.33), flip=0.5)
ORIENTATION = 0x0112


def picture(height, width, seed=0):
    """A smooth coloured image: waves of different lengths, so that a wrong place or turn shows."""
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    bands = [np.sin(6 * rows + seed), np.sin(9 * columns + 1), np.sin(5 * (rows + columns) + seed)]
    return Image.fromarray(np.uint8(np.stack(bands, axis=-1) * 120 + 128))


def encoded(image, format="JPEG", orientation=None, **options):
    stream = io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    image.save(stream, format, exif=exif, **options)
    stream.seek(0)
    return stream


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for index in range(14):
        folder = root / "train" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        format = "png" if index == 3 else "jpg"
        picture(280 + 8 * index, 360 - 9 * index, index).save(folder / f"{index}.{format}", quality=95)
    return Folder(FolderConfig(root=root, val_fraction=0.1), tmp_path_factory.mktemp("cache")).split("train")


def batches(split, decoding, views=INPUT, workers=0):
    loader = training_loader(split, views, batch_size=4, seed=0, device=CPU, workers=workers, decoding=decoding)
    loader.sampler.set_epoch(1)
    return list(loader)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", [None, 3, 6, 8])
def test_a_jpeg_is_decoded_at_reduced_sides_and_upright(factor, orientation):
    source = encoded(picture(88, 136), orientation=orientation, quality=95)
    whole = read_pixels(source, 3)
    source.seek(0)
    sizes = []
    pixels, size = read_reduced(source, 3, DEFAULT_POLICY, lambda *size: sizes.append(size) or factor)
    assert sizes == [whole.shape[:2]] == [size]
    assert size == ((136, 88) if orientation in (6, 8) else (88, 136))
    blocks = whole.reshape(size[0] // factor, factor, size[1] // factor, factor, 3).mean(axis=(1, 3))
    assert pixels.shape == blocks.shape
    assert np.abs(pixels - blocks).max() < 6


def test_a_side_that_is_no_multiple_is_rounded_up():
    pixels, size = read_reduced(encoded(picture(90, 133)), 3, DEFAULT_POLICY, lambda *_: 4)
    assert (pixels.shape, size) == ((23, 34, 3), (90, 133))


def test_grey_jpegs_and_grey_reading():
    image = picture(64, 96)
    for source, channels in ((image, 1), (image.convert("L"), 3)):
        pixels, size = read_reduced(encoded(source), channels, DEFAULT_POLICY, lambda *_: 2)
        assert (pixels.shape, size) == ((32, 48, channels), (64, 96))


def test_other_formats_are_decoded_whole():
    pixels, size = read_reduced(encoded(picture(60, 80), "PNG"), 3, DEFAULT_POLICY, lambda *_: 4)
    assert (pixels.shape, size) == ((60, 80, 3), (60, 80))


def test_crops_are_those_of_full_decoding_nearly(split):
    full, scaled = batches(split, "full"), batches(split, "scaled")
    assert len(full) == len(scaled) == 3
    for (images, labels), (others, other_labels) in zip(full, scaled, strict=True):
        assert torch.equal(labels, other_labels)
        assert images.shape == others.shape == (4, 3, 32, 32)
        difference = (images.float() - others.float()).abs()
        assert difference.mean() < 5
        assert difference.max() < 40
    assert any(not torch.equal(images, others) for (images, _), (others, _) in zip(full, scaled, strict=True))


def test_a_crop_that_permits_no_reduction_is_that_of_full_decoding(split):
    wide = INPUT.model_copy(update={"image_size": 200})
    for (images, _), (others, _) in zip(batches(split, "full", wide), batches(split, "scaled", wide), strict=True):
        assert torch.equal(images, others)


def test_the_largest_view_decides(split, monkeypatch):
    small = View.from_input(INPUT, image_size=16, crop_scale=(0.05, 0.3))
    factors = []
    read = type(split).read_reduced

    def noted(self, index, reduction):
        def noting(height, width):
            factors.append(reduction(height, width))
            return factors[-1]

        return read(self, index, noting)

    monkeypatch.setattr(type(split), "read_reduced", noted)
    pairs = [(a, b) for (a, b), _ in batches(split, "scaled", [INPUT, small])]
    assert all(a.shape[-1] == 32 and b.shape[-1] == 16 for a, b in pairs)
    together = list(factors)
    factors.clear()
    batches(split, "scaled", [INPUT])
    assert all(both <= alone for both, alone in zip(together, factors, strict=True))
    assert together != factors
    assert max(factors) >= 4
    for (a, b), ((one, other), _) in zip(pairs, batches(split, "full", [INPUT, small]), strict=True):
        assert (a.float() - one.float()).abs().mean() < 5
        assert (b.float() - other.float()).abs().mean() < 5


def test_workers_and_subsets_change_nothing(split):
    alone, shared = batches(split, "scaled"), batches(split, "scaled", workers=2)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(alone, shared, strict=True))
    half = training_images(split, DataChoice(share=0.5))
    images, labels = batches(half, "scaled")[0]
    assert len(half) == 6
    assert images.shape == (4, 3, 32, 32)
    assert set(labels.tolist()) <= {0, 1}


def test_a_damaged_file_is_named(tmp_path):
    root = tmp_path / "images"
    for part in ("train", "val"):
        (root / part / "a").mkdir(parents=True)
        for index in range(4):
            picture(64, 64).save(root / part / "a" / f"{index}.jpg")
    dataset = ImageNet(ImageNetConfig(root=root), tmp_path / "cache")
    (root / "train" / "a" / "2.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    with pytest.raises(Exception, match=r"cannot read the image .*train/a/2\.jpg"):
        batches(dataset.split("train"), "scaled")
