"""Batches of the test images, as the method gets them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mimbench.api import DeviceTransform, ImageSplit, InputConfig, evaluation_loader, subset

BATCH = 128
"""Images per batch. Masks and random draws are made batch by batch, so results depend on it."""


def shuffle(split: ImageSplit, most: int) -> ImageSplit:
    """At most `most` images in random order. They and their order are the same for every method and seed."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return subset(split, order[:most].tolist())


def normalised_batches(
    split: ImageSplit, input_config: InputConfig, channels: int, device: torch.device
) -> Iterator[Tensor]:
    """All images of a split in order, as normalised batches float [B, channels, S, S] on the device."""
    transform = DeviceTransform(input_config, channels, train=False, batched=split.is_in_memory).to(device)
    for images, _ in evaluation_loader(split, input_config, batch_size=BATCH, device=device):
        yield transform(images.to(device, non_blocking=True))
