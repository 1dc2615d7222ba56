"""Colour jitter, grey images, blur and solarisation of batches on any device, each drawn per image from a generator.

A batch is [B, C, H, W], or [B, T, C, H, W] of clips. What is drawn for a clip holds in all of its frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.contract import View
from mimbench.shared_batch import draw_rows


def augment_view(pixels: Tensor, view: View, generator: torch.Generator) -> Tensor:
    """Apply the options of a view that [input] does not have: jitter, grey, blur and solarisation, in this order.

    Args:
        pixels: float [B, C, H, W] or [B, T, C, H, W] in [0, 1].
    """
    if any(view.jitter):
        chosen = _choose(pixels, view.jitter_probability, generator)
        pixels = _jitter_in_random_order(pixels, chosen, view.jitter, generator)
    if view.grayscale:
        chosen = _choose(pixels, view.grayscale, generator)
        pixels = torch.where(_per_image(chosen, pixels), _luminance(pixels), pixels)
    if view.blur:
        chosen = _choose(pixels, view.blur, generator)
        pixels = _blur(pixels, chosen, view, generator)
    if view.solarize:
        chosen = _choose(pixels, view.solarize, generator)
        pixels = torch.where(_per_image(chosen, pixels) & (pixels >= 128 / 255), 1 - pixels, pixels)
    return pixels


def jitter_colors(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Multiply brightness, contrast and saturation by U(1 - s, 1 + s), drawn per image; images in [0, 1].

    As torchvision's ColorJitter, except that the order is fixed and not drawn per image. The images are crops;
    BEiT's and data2vec's scripts jitter the whole image first, so that contrast turns around the whole image's mean.
    """
    others = [1] * (pixels.ndim - 1)
    draws = draw_rows(lambda rows: _uniform(generator, 3, rows, *others), len(pixels), axis=1).to(pixels.device)
    low = max(0.0, 1 - strength)
    brightness, contrast, saturation = low + (1 + strength - low) * draws
    pixels = (pixels * brightness).clamp(0, 1)
    mean = _luminance(pixels).mean(dim=(-2, -1), keepdim=True)
    pixels = (mean + contrast * (pixels - mean)).clamp(0, 1)
    grey = _luminance(pixels)
    return (grey + saturation * (pixels - grey)).clamp(0, 1)


def blur_kernel(image_size: int) -> int:
    """Width of the blur's kernel in px: odd, about a tenth of the image, at least 3."""
    return max(3, 2 * round(image_size / 20) + 1)


def _jitter_in_random_order(
    pixels: Tensor, chosen: Tensor, strengths: tuple[float, float, float, float], generator: torch.Generator
) -> Tensor:
    """torchvision's ColorJitter: factors and their order are drawn per image."""
    from torchvision.transforms.v2 import functional as F

    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    lows = [*(max(0.0, 1 - strength) for strength in strengths[:3]), -strengths[3]]
    highs = [*(1 + strength for strength in strengths[:3]), strengths[3]]
    low, high = torch.tensor(lows), torch.tensor(highs)
    factors = low + (high - low) * draw_rows(lambda rows: _uniform(generator, rows, 4), len(pixels)).cpu()
    orders = draw_rows(lambda rows: _uniform(generator, rows, 4), len(pixels)).cpu().argsort(1).tolist()
    result = pixels.clone()
    for index in chosen.nonzero().flatten().tolist():
        image = pixels[index]
        for step in orders[index]:
            if strengths[step]:
                image = adjust[step](image, float(factors[index, step]))
        result[index] = image
    return result


def _blur(pixels: Tensor, chosen: Tensor, view: View, generator: torch.Generator) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    low, high = view.blur_sigma
    sigmas = (low + (high - low) * draw_rows(lambda rows: _uniform(generator, rows), len(pixels))).tolist()
    kernel = blur_kernel(view.image_size)
    result = pixels.clone()
    for index in chosen.nonzero().flatten().tolist():
        result[index] = F.gaussian_blur(pixels[index], [kernel, kernel], [sigmas[index]])
    return result


def _choose(pixels: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Which images an option changes: bool [B] on the device of `pixels`."""
    return (draw_rows(lambda rows: _uniform(generator, rows), len(pixels)) < probability).to(pixels.device)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _per_image(chosen: Tensor, pixels: Tensor) -> Tensor:
    return chosen.view(-1, *[1] * (pixels.ndim - 1))


def _luminance(pixels: Tensor) -> Tensor:
    """[..., 1, H, W], ITU-R 601 weights."""
    from torchvision.transforms.v2 import functional as F

    return F.rgb_to_grayscale(pixels) if pixels.shape[-3] == 3 else pixels
