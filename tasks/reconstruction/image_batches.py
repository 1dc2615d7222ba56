"""Batches of the test images, as the method gets them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mimbench.api import ImageSplit, InputConfig, normalised_batches, subset

BATCH = 128
"""Images per batch. Masks and random draws are made batch by batch, so results depend on it."""


def shuffle(split: ImageSplit, most: int) -> ImageSplit:
    """At most `most` images in random order. They and their order are the same for every method and seed."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return subset(split, order[:most].tolist())


def image_batches(
    split: ImageSplit, input_config: InputConfig, channels: int, device: torch.device
) -> Iterator[Tensor]:
    """All images of a split in order, as normalised batches float [B, channels, S, S] on the device."""
    for images, _ in normalised_batches(split, input_config, channels, batch_size=BATCH, device=device):
        yield images
