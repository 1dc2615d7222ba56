"""The test images that are used, and how they reach the method."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mimbench.api import DeviceTransform, ImageSplit, InputConfig, evaluation_loader, subset

BATCH = 128
"""Images at once; masks and draws come batch by batch, so that it shapes them."""


def shuffled(split: ImageSplit, most: int) -> ImageSplit:
    """At most `most` images in random order: the same ones, in the same order, for every method and seed."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return subset(split, order[:most].tolist())


def normalised(split: ImageSplit, input_config: InputConfig, channels: int, device: torch.device) -> Iterator[Tensor]:
    """Batches [B, channels, S, S] on the device, in order."""
    transform = DeviceTransform(input_config, channels, train=False, batched=split.is_in_memory).to(device)
    for images, _ in evaluation_loader(split, input_config, batch_size=BATCH, device=device):
        yield transform(images.to(device, non_blocking=True))
