"""data.decode=device: what the training device decodes and crops is what the loader's workers would cut."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mimbench.contract import InputConfig, View
from mimbench.data.files.image_reading import DEFAULT_POLICY
from mimbench.data.files.jpeg_headers import is_plain_jpeg
from mimbench.data.pipeline import device_decoding
from mimbench.data.pipeline.device_decoding import decode_on
from mimbench.data.pipeline.encoded import EncodedBatch
from mimbench.data.pipeline.loading import training_loader
from mimbench.data.pipeline.transforms import DeviceTransform
from mimbench.data.sources.folder import FolderSplit
from mimbench.engine.pretrain import TrainableMethod
from mimbench.errors import RunError

CPU = torch.device("cpu")
INPUT = InputConfig(image_size=32, crop_scale=(0.2, 1.0), crop_ratio=(0.75, 1.33), flip=0.5)
ORIENTATION = 0x0112
LEVEL = 1 / 255


def picture(height, width, seed=0):
    """Waves of different lengths in each colour, so that a wrong place, turn or colour shows."""
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    bands = [np.sin(6 * rows + seed), np.sin(9 * columns + 1), np.sin(5 * (rows + columns) + seed)]
    return Image.fromarray(np.uint8(np.stack(bands, axis=-1) * 120 + 128))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images of eight sizes: plain JPEGs, and one each a PNG, grey, lying on its side, CMYK and progressive."""
    root = tmp_path_factory.mktemp("images")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for index in range(8):
        image, name, options = picture(90 + 11 * index, 150 - 9 * index, index), f"{index}.jpg", {"quality": 95}
        if index == 1:
            name, options = "1.png", {}
        if index == 2:
            image = image.convert("L")
        if index == 3:
            options["exif"] = exif
        if index == 4:
            image = image.convert("CMYK")
        if index == 5:
            options["progressive"] = True
        image.save(root / name, **options)
    return root


def make_split(root, channels=3):
    names = sorted(path.name.encode() for path in root.iterdir())
    return FolderSplit(root, names, np.arange(len(names)) % 2, ("a", "b"), channels, DEFAULT_POLICY)


def batch_of(split, decoding, views=INPUT, workers=0):
    loader = training_loader(split, views, batch_size=8, seed=3, device=CPU, workers=workers, decoding=decoding)
    loader.sampler.set_epoch(2)
    return next(iter(loader))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_are_those_of_the_workers(root, channels, interpolation):
    split, config = make_split(root, channels), INPUT.model_copy(update={"interpolation": interpolation})
    encoded, labels = batch_of(split, "device", config)
    expected, expected_labels = batch_of(split, "full", config)
    assert torch.equal(labels, expected_labels)
    crops = decode_on(CPU, encoded).crop(0, 32, interpolation)
    assert crops.shape == (8, channels, 32, 32)
    difference = (crops - expected.float() / 255).abs()
    assert difference.max() < 3 * LEVEL
    assert difference.mean() < 0.5 * LEVEL


def test_only_plain_jpegs_are_left_to_the_device(root):
    split = make_split(root)
    files = {split.path(index).name: split.read_encoded(index) for index in range(8)}
    assert [name for name, file in files.items() if file.is_jpeg] == ["0.jpg", "2.jpg", "5.jpg", "6.jpg", "7.jpg"]
    for index in range(8):
        assert split.read_encoded(index).size == split[index][0].shape[1:]
    grey = make_split(root, channels=1)
    assert [grey.path(index).name for index in range(8) if grey.read_encoded(index).is_jpeg] == ["2.jpg"]


def test_colours_that_are_stored_as_rgb_are_no_plain_jpeg():
    stream = io.BytesIO()
    picture(20, 30).save(stream, "JPEG", keep_rgb=True)
    stored_as_rgb = Image.open(stream)
    assert stored_as_rgb.mode == "RGB"
    assert not is_plain_jpeg(stored_as_rgb, 3)


def test_groups_bound_the_memory_and_change_nothing(root, monkeypatch):
    encoded, _ = batch_of(make_split(root), "device")
    together = decode_on(CPU, encoded).crop(0, 32, "bicubic")
    sizes = []
    resample = device_decoding.resample
    monkeypatch.setattr(
        device_decoding, "resample", lambda images, *rest: sizes.append(images.shape) or resample(images, *rest)
    )
    monkeypatch.setattr(device_decoding, "_MOST_PIXELS", 20_000)
    in_groups = decode_on(CPU, encoded).crop(0, 32, "bicubic")
    assert len(sizes) > 2
    assert all(len(size) == 4 and (size[0] == 1 or size[0] * size[2] * size[3] <= 20_000) for size in sizes)
    assert sum(size[0] for size in sizes) == 8
    torch.testing.assert_close(together, in_groups, atol=1e-5, rtol=0)


def test_each_view_has_its_crops(root):
    small = View.from_input(INPUT, image_size=16, crop_scale=(0.05, 0.3))
    encoded, _ = batch_of(make_split(root), "device", [INPUT, small])
    decoded = decode_on(CPU, encoded)
    whole, part = batch_of(make_split(root), "full", [INPUT, small])[0]
    assert (decoded.crop(0, 32, "bicubic") - whole.float() / 255).abs().max() < 3 * LEVEL
    assert (decoded.crop(1, 16, "bicubic") - part.float() / 255).abs().max() < 3 * LEVEL
    assert encoded.mirrors.any()
    assert not encoded.mirrors.all()


def test_workers_change_nothing(root):
    alone, _ = batch_of(make_split(root), "device")
    shared, _ = batch_of(make_split(root), "device", workers=2)
    assert isinstance(shared, EncodedBatch)
    assert torch.equal(alone.data, shared.data)
    assert torch.equal(alone.boxes, shared.boxes)
    assert torch.equal(alone.mirrors, shared.mirrors)
    assert (alone.lengths, alone.sizes, alone.places) == (shared.lengths, shared.sizes, shared.places)


class Noting(torch.nn.Module):
    def step(self, batch, generator):
        self.views = batch.views


def test_a_training_step_gets_normalised_views(root):
    views = (INPUT, View.from_input(INPUT, image_size=16, grayscale=1.0))
    expected, method = [], Noting()
    model = TrainableMethod(method, views, channels=3, batched=False)
    for decoding in ("full", "device"):
        model.training_step(batch_of(make_split(root), decoding, views), torch.Generator().manual_seed(0))
        expected.append(method.views)
    for full, decoded in zip(*expected, strict=True):
        assert full.shape == decoded.shape
        assert (full - decoded).abs().max() < 3 * LEVEL / 0.22
    transform = DeviceTransform(INPUT, 3, train=True, batched=False)
    decoded = decode_on(CPU, batch_of(make_split(root), "device")[0])
    assert transform.from_decoded(decoded, 0, torch.Generator()).dtype == torch.float32


def test_a_damaged_image_is_named(root, tmp_path):
    for path in root.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (root / "6.jpg").read_bytes()
    start = whole.index(b"\xff\xda")
    (tmp_path / "6.jpg").write_bytes(whole[: start + 40])  # the header is sound
    with pytest.raises(RunError, match=r"cannot read the image .*6\.jpg on cpu: "):
        decode_on(CPU, batch_of(make_split(tmp_path), "device")[0])
    (tmp_path / "6.jpg").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"cannot read the image .*6\.jpg: "):
        batch_of(make_split(tmp_path), "device")


@pytest.mark.cuda
@pytest.mark.parametrize("channels", [1, 3])
def test_nvjpeg_gives_the_crops_of_the_workers(root, channels):
    """Two decoders: 1 level apart on average, and further at edges of colour, which JPEG stores at half size."""
    split = make_split(root, channels)
    encoded, _ = batch_of(split, "device")
    expected, _ = batch_of(split, "full")
    crops = decode_on(torch.device("cuda"), encoded).crop(0, 32, "bicubic").cpu()
    difference = (crops - expected.float() / 255).abs()
    assert difference.mean() < 1 * LEVEL
    assert difference.max() < 12 * LEVEL


@pytest.mark.cuda
def test_crops_on_cuda_take_few_kernels(root):
    decoded = decode_on(torch.device("cuda"), batch_of(make_split(root), "device")[0])
    counts = []
    for repeat in (1, 4):
        boxes = decoded.boxes.repeat(1, repeat, 1)
        more = device_decoding.DecodedBatch(decoded.images * repeat, boxes, decoded.mirrors.repeat(1, repeat))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            more.crop(0, 32, "bicubic")
            torch.cuda.synchronize()
        counts.append(sum(event.count for event in profile.key_averages()))
    assert counts[1] <= counts[0] + 4
    assert counts[1] < 100
