"""Targets without high frequencies (PixMIM, arXiv:2303.02416).

Reference code: Apache 2.0; not used here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.api import InputError, at_least_float32, full_precision


def low_pass(images: Tensor, radius: float) -> Tensor:
    """Images [B, C, H, W] without frequencies outside of a circle: an ideal filter in the Fourier domain.

    As in open-mmlab/mmselfsup@1522bd48 mmselfsup/models/target_generators/low_freq_generator.py, the circle's centre is
    the middle of the frequencies from -H / 2 to H / 2 - 1, which is half a cycle below 0. A frequency whose negative
    lies outside is halved by that, since the result is real. The official code takes the absolute value of the complex
    result, of images whose black is 0; here its real part is taken, of images on any scale.

    Args:
        radius: cycles per image.
    """
    with full_precision(images.device):
        spectrum = torch.fft.fft2(at_least_float32(images))
        inside = _inside(images.shape[-2], images.shape[-1], radius, images.device)
        return torch.fft.ifft2(spectrum * inside).real


def check_low_pass(radius: float | None, image_size: int) -> None:
    """Raise InputError if a low-pass filter would remove nothing from an image of `image_size` px."""
    if radius is not None and bool(_inside(image_size, image_size, radius, torch.device("cpu")).all()):
        raise InputError(
            f"method.low_pass {radius:g} keeps all frequencies of an image of {image_size} px; choose less than "
            f"{(image_size - 1) / 2**0.5:.1f}, or leave it out"
        )


def _inside(height: int, width: int, radius: float, device: torch.device) -> Tensor:
    """bool [H, W], in the order of fft2: the frequencies that stay."""
    rows, columns = (
        (torch.arange(length, device=device) - (length - 1) / 2).roll(-(length // 2)) for length in (height, width)
    )
    return rows[:, None] ** 2 + columns**2 <= radius**2
