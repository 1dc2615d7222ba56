"""Colour options of views on batches: the share of images that they change, and the pixels that torchvision gives."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms.v2 import functional as F

from helpers.random_inputs import seeded
from mimbench.contract import InputConfig, View
from mimbench.data.pipeline.batched_colors import augment_view, blur_kernel, jitter_colors
from mimbench.data.pipeline.transforms import DeviceTransform, TrainingCrop
from mimbench.errors import InputError

INPUT = InputConfig(image_size=16)


def pixels(*shape, seed=0):
    return torch.rand(shape, generator=seeded(seed))


def changed_by(images, **options):
    """Which images the options of a view change, and the result."""
    result = augment_view(images, View.from_input(INPUT, **options), seeded())
    return (result - images).abs().amax(dim=(1, 2, 3)) > 1e-6, result


def test_colour_jitter_spans_its_strength_and_zero_changes_nothing():
    grey = torch.full((4000, 3, 2, 2), 0.4)
    factors = jitter_colors(grey, 0.5, seeded())[:, 0, 0, 0] / 0.4
    assert factors.min() < 0.52
    assert factors.max() > 1.48
    assert abs(factors.mean() - 1) < 0.02
    images = pixels(4, 3, 8, 8)
    assert torch.allclose(jitter_colors(images, 0.0, seeded()), images, atol=1e-6)
    assert jitter_colors(images[:, :1], 2.0, seeded()).shape == (4, 1, 8, 8)


@pytest.mark.parametrize(
    "options",
    [
        {"jitter": (0.4, 0.4, 0.2, 0.1), "jitter_probability": 0.3},
        {"grayscale": 0.3},
        {"blur": 0.3},
        {"solarize": 0.3},
    ],
)
def test_an_option_changes_the_share_of_images_that_it_names(options):
    changed, _ = changed_by(pixels(600, 3, 6, 6), **options)
    assert abs(changed.float().mean() - 0.3) < 0.06
    assert torch.equal(changed, changed_by(pixels(600, 3, 6, 6), **options)[0])


def test_each_option_gives_the_pixels_of_torchvision():
    images = pixels(5, 3, 24, 24)
    assert torch.allclose(changed_by(images, grayscale=1.0)[1], F.rgb_to_grayscale(images, 3))
    as_bytes = (255 * images).round() / 255
    expected = F.solarize((255 * as_bytes).round().to(torch.uint8), 128).float() / 255
    assert torch.allclose(changed_by(as_bytes, solarize=1.0)[1], expected, atol=1e-6)
    blurred = changed_by(images, blur=1.0, blur_sigma=(1.5, 1.5))[1]
    assert torch.allclose(blurred, F.gaussian_blur(images, [3, 3], [1.5, 1.5]), atol=1e-6)


@pytest.mark.parametrize(
    ("strengths", "adjust"),
    [
        ((0.6, 0, 0, 0), F.adjust_brightness),
        ((0, 0.6, 0, 0), F.adjust_contrast),
        ((0, 0, 0.6, 0), F.adjust_saturation),
        ((0, 0, 0, 0.4), F.adjust_hue),
    ],
)
def test_jitter_draws_a_factor_per_image_within_its_strength(strengths, adjust):
    image = pixels(1, 3, 4, 4).clamp(0.2, 0.6)
    _, result = changed_by(image.expand(40, 3, 4, 4), jitter=strengths)
    low, high = (-0.4, 0.4) if adjust is F.adjust_hue else (0.4, 1.6)
    candidates = torch.stack([adjust(image[0], float(factor)) for factor in torch.linspace(low, high, 400)])
    distances = (result[:, None] - candidates).abs().amax(dim=(2, 3, 4))
    assert distances.amin(1).max() < 0.02
    factors = distances.argmin(1)
    assert factors.min() < 80
    assert factors.max() > 320


def test_the_order_of_the_jitter_is_drawn_per_image():
    image = pixels(1, 3, 4, 4)
    one_factor = {"jitter": (1e-9, 1e-9, 1e-9, 0.0)}
    assert torch.allclose(changed_by(image, **one_factor)[1], image, atol=1e-6)
    results = changed_by(image.expand(64, 3, 4, 4), jitter=(0.9, 0.9, 0, 0))[1]
    assert len({tuple(result.flatten().tolist()) for result in results}) == 64


def test_the_kernel_of_the_blur_is_a_tenth_of_the_image():
    assert [blur_kernel(size) for size in (224, 96, 32, 16)] == [23, 11, 5, 3]


def test_images_in_memory_and_from_files_take_the_same_options():
    view = View.from_input(INPUT, jitter=(0.4, 0.4, 0.2, 0.1), grayscale=1.0, blur=1.0, solarize=1.0)
    image = (255 * pixels(1, 3, 20, 20)).to(torch.uint8)
    in_memory = DeviceTransform(view.model_copy(update={"mean": (0.0,), "std": (1.0,)}), 3, train=True, batched=True)
    for result in (in_memory(image, seeded()), TrainingCrop(view)(image[0])[None].float() / 255):
        assert result.shape == (1, 3, 16, 16)
        assert torch.allclose(result[:, 0], result[:, 2], atol=1e-6)  # grey
        assert result.max() <= 0.51  # solarised


def test_an_impossible_view_is_refused():
    for options in ({"jitter": (0, 0, 0, 0.6)}, {"jitter": (-1, 0, 0, 0)}, {"blur_sigma": (2.0, 0.1)}, {"blr": 1.0}):
        with pytest.raises(ValidationError):
            View.from_input(INPUT, **options)


def test_colours_need_grey_or_rgb_images():
    for options in ({"jitter": (0.1, 0, 0, 0)}, {"grayscale": 0.5}):
        with pytest.raises(InputError, match="take grey and RGB images, and these have 4 channels"):
            DeviceTransform(View.from_input(INPUT, mean=(0.5,), std=(0.5,), **options), 4, train=True, batched=True)
    DeviceTransform(View.from_input(INPUT, mean=(0.5,), std=(0.5,), blur=1.0), 4, train=True, batched=True)
