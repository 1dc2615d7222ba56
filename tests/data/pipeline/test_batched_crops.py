"""Crops on the device: the distribution asked for, and the pixels that torchvision would give."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from helpers.random_inputs import seeded
from mimbench.contract import InputConfig
from mimbench.data.pipeline.batched_crops import random_boxes, random_squares, resample, with_border
from mimbench.data.pipeline.transforms import (
    DeviceTransform,
    TrainingCrop,
    denormalise,
    evaluation_crop,
)
from mimbench.errors import InputError


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=seeded(seed), dtype=torch.uint8)


def config(**options):
    return InputConfig(**{"image_size": 32, "mean": (0.0,), "std": (1.0,), **options})


@pytest.mark.parametrize(("height", "width"), [(300, 300), (200, 400)])
@pytest.mark.parametrize(("scale", "ratio"), [((0.2, 1.0), (3 / 4, 4 / 3)), ((0.67, 1.0), (1.0, 1.0))])
def test_boxes_are_distributed_as_torchvisions(scale, ratio, height, width):
    count = 3000
    ours = random_boxes(count, height, width, scale, ratio, seeded()).double()
    crop = v2.RandomResizedCrop(8, scale=scale, ratio=ratio)
    image = torch.empty(1, height, width, dtype=torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [crop.make_params([image]) for _ in range(count)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in drawn]).double()
    for quantity in (
        lambda b: b[:, 2] * b[:, 3] / (height * width),
        lambda b: (b[:, 3] / b[:, 2]).log(),
        lambda b: b[:, 0] / height,
        lambda b: b[:, 1] / width,
    ):
        levels = torch.linspace(0.05, 0.95, 10, dtype=torch.double)
        difference = quantity(ours).quantile(levels) - quantity(theirs).quantile(levels)
        assert difference.abs().max() < 0.03


def test_boxes_keep_within_scale_ratio_and_image():
    boxes = random_boxes(5000, 200, 200, (0.25, 0.5), (0.8, 1.25), seeded()).double()
    top, left, height, width = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (top + height <= 200).all()
    assert (left + width <= 200).all()
    area = height * width / 200**2
    assert area.min() > 0.24
    assert area.max() < 0.51
    assert abs(area.mean() - 0.375) < 0.005
    assert ((width / height).log().abs() < 0.24).all()


def test_boxes_fall_back_to_the_central_crop():
    assert (random_boxes(4, 10, 100, (1.0, 1.0), (1.0, 1.0), seeded()) == torch.tensor([0, 45, 10, 10])).all()
    assert (random_boxes(4, 100, 10, (1.0, 1.0), (1.0, 2.0), seeded()) == torch.tensor([45, 0, 10, 10])).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 40, 97])
def test_resampling_equals_torchvisions_antialiased_crop(interpolation, size):
    images = noise(6, 3, 40, 50).float() / 255
    boxes = random_boxes(6, 40, 50, (0.1, 1.0), (0.5, 2.0), seeded())
    mirror = torch.tensor([True, False] * 3)
    ours = resample(images, boxes, size, interpolation, mirror)
    for image, box, flipped, output in zip(images, boxes.tolist(), mirror, ours, strict=True):
        expected = F.resized_crop(image, *box, [size, size], v2.InterpolationMode(interpolation), antialias=True)
        expected = F.horizontal_flip(expected) if flipped else expected
        assert torch.allclose(output, expected.clamp(0, 1), atol=2e-3)


def test_no_crop_changes_nothing():
    images = noise(4, 1, 32, 32)
    transform = DeviceTransform(config(), 1, train=True, batched=True)
    assert torch.allclose(transform(images, seeded()) * 255, images.float(), atol=1e-3)


def test_training_draws_from_its_generator_only():
    images = noise(8, 3, 28, 28)
    transform = DeviceTransform(config(crop_scale=(0.2, 1), flip=0.5, color_jitter=0.4), 3, train=True, batched=True)
    before = torch.get_rng_state()
    first, again, other = transform(images, seeded(1)), transform(images, seeded(1)), transform(images, seeded(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (8, 3, 32, 32)
    assert first.dtype == torch.float32


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_flips_as_often_as_asked(share):
    images = noise(1, 1, 8, 8).expand(2000, 1, 8, 8)
    out = DeviceTransform(config(image_size=8, flip=share), 1, train=True, batched=True)(images, seeded())
    flipped = (out - images.flip(-1).float() / 255).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert abs(flipped.float().mean() - share) < 0.04


def test_autocast_does_not_round_pixels():
    images = noise(2, 1, 28, 28)
    transform = DeviceTransform(config(crop_scale=(0.2, 1)), 1, train=True, batched=True)
    plain = transform(images, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(transform(images, seeded()), plain)


def test_evaluation_of_arrays():
    square = noise(2, 1, 28, 28)
    resized = DeviceTransform(config(), 1, train=False, batched=True)(square)
    expected = F.resize(square.float() / 255, [32, 32], v2.InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
    assert torch.allclose(resized, expected, atol=2e-3)
    wide = noise(2, 1, 32, 48)
    assert torch.allclose(DeviceTransform(config(), 1, False, True)(wide) * 255, wide[..., 8:40].float(), atol=1e-3)
    large = noise(2, 1, 64, 64)
    cut = DeviceTransform(config(eval_resize=64), 1, False, True)(large)
    assert torch.allclose(cut * 255, large[..., 16:48, 16:48].float(), atol=1e-3)


def test_images_from_workers_are_only_normalised():
    images = noise(2, 3, 32, 32)
    options = config(crop_scale=(0.1, 0.2), flip=1.0, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    out = DeviceTransform(options, 3, train=True, batched=False)(images)
    expected = (images / 255 - torch.tensor(options.mean)[:, None, None]) / torch.tensor(options.std)[:, None, None]
    assert torch.allclose(out, expected)
    assert torch.allclose(denormalise(out, options), images / 255, atol=1e-6)


def test_evaluation_crop_is_the_usual_one():
    image = noise(3, 60, 90)
    resized = F.resize(image, [37], v2.InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(evaluation_crop(image, config()), F.center_crop(resized, [32, 32]))
    assert evaluation_crop(noise(1, 1, 1), config()).shape == (1, 32, 32)
    assert evaluation_crop(noise(3, 20000, 2), config()).shape == (3, 32, 32)


def test_training_crop_takes_any_size():
    crop = TrainingCrop(config(crop_scale=(0.2, 1), crop_ratio=(0.75, 4 / 3), flip=0.5, color_jitter=0.4))
    with torch.random.fork_rng():
        for shape in ((3, 1, 1), (1, 700, 3), (3, 50, 40)):
            assert crop(noise(*shape)).shape == (shape[0], 32, 32)


@pytest.mark.parametrize(
    ("options", "channels", "message"),
    [
        ({"mean": (0.5,) * 3}, 1, "input.mean has 3 values and the images have 1 channel: give 1 value"),
        ({"std": (0.5,) * 2}, 3, "input.std has 2 values and the images have 3 channels: give 1 value or 3"),
        ({"eval_resize": 16}, 3, "input.eval_resize = 16 is below input.image_size = 32"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(options, channels, message):
    with pytest.raises(InputError, match=message):
        DeviceTransform(config(**options), channels, train=False, batched=True)


def test_a_deviation_of_zero_is_no_input():
    with pytest.raises(ValueError, match="std must be above 0"):
        config(std=(0.0,))


@pytest.mark.parametrize("train", [True, False])
def test_no_cpu_tensor_meets_a_cuda_one(train):
    """FakeTensorMode raises on any mix of devices, without a device."""
    transform = DeviceTransform(config(crop_scale=(0.2, 1), color_jitter=0.4, flip=0.5), 3, train, batched=True)
    generator = seeded()
    with FakeTensorMode(allow_non_fake_inputs=True):
        buffers = {name: torch.empty(value.shape, device="cuda") for name, value in transform.named_buffers()}
        images = torch.empty(4, 3, 28, 28, dtype=torch.uint8, device="cuda")
        out = torch.func.functional_call(transform, buffers, (images, generator))
    assert out.device.type == "cuda"
    assert out.shape == (4, 3, 32, 32)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_as_on_the_cpu():
    images = noise(8, 3, 40, 40)
    options = config(crop_scale=(0.2, 1), color_jitter=0.4, flip=0.5)
    transform = DeviceTransform(options, 3, train=True, batched=True)
    expected = transform(images, seeded())
    # A generator on the CPU draws the same numbers for both.
    assert torch.allclose(transform.cuda()(images.cuda(), seeded()).cpu(), expected, atol=1e-4)
    assert transform(images.cuda(), torch.Generator("cuda").manual_seed(0)).device.type == "cuda"


def places_of(crops, image, border=4):
    """How often each square of the mirrored image is among the crops, by its top left corner."""
    wide = torch.nn.functional.pad(image.float(), (border,) * 4, mode="reflect")
    size = crops.shape[-1]
    corners = {}
    for top in range(wide.shape[-2] - size + 1):
        for left in range(wide.shape[-1] - size + 1):
            square = wide[:, top : top + size, left : left + size]
            corners[top, left] = int(((crops - square).abs().amax((1, 2, 3)) < 1e-2).sum())
    return corners


@pytest.mark.parametrize("batched", [True, False])
def test_simple_crops_are_squares_of_the_mirrored_image_at_all_places(batched):
    options, image = config(image_size=12, crop="simple"), noise(1, 12, 15)
    if batched:
        crops = 255 * DeviceTransform(options, 1, True, True)(image.expand(3000, -1, -1, -1), seeded())
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            crop = TrainingCrop(options)
            crops = torch.stack([crop(image) for _ in range(3000)]).float()
    counts = places_of(crops, image)
    assert len(counts) == 9 * 12
    assert sum(counts.values()) == 3000
    assert min(counts.values()) > 8
    assert max(counts.values()) < 56


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_simple_crops_resize_the_shorter_side(interpolation):
    image = noise(3, 41, 60).float() / 255
    resized = F.resize(image, [32], v2.InterpolationMode(interpolation), antialias=True).clamp(0, 1)
    ours = with_border(image[None], 32, interpolation)
    assert ours.shape == (1, 3, 40, 54)
    assert torch.allclose(ours[0], F.pad(resized, [4], padding_mode="reflect"), atol=1e-6)
    clip = image[None, :, None].expand(1, 3, 2, 41, 60)
    assert torch.allclose(with_border(clip, 32, interpolation)[:, :, 1], ours)
    boxes = random_squares(500, 40, 54, 32, seeded())
    assert boxes[:, :2].amax(0).tolist() == [8, 22]
    assert boxes[:, :2].amin(0).tolist() == [0, 0]
    assert (boxes[:, 2:] == 32).all()


def test_simple_crops_take_any_size():
    crop = TrainingCrop(config(crop="simple"))
    with torch.random.fork_rng():
        for shape in ((3, 1, 1), (1, 700, 3), (3, 50, 40)):
            assert crop(noise(*shape)).shape == (shape[0], 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_scale": (0.2, 1.0)}, 'crop "simple" has no crop_scale: set crop_scale to'),
        ({"crop_ratio": (0.75, 1.33)}, 'crop "simple" has no crop_ratio: set crop_ratio to'),
        ({"image_size": 4}, 'crop "simple" needs an image_size of 5 px or more, not 4'),
    ],
)
def test_options_without_effect_on_simple_crops_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        config(crop="simple", **options)
