"""All images of a split, as an encoder sees them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mimbench.contract import ImageSplit, InputConfig
from mimbench.data.pipeline.loading import evaluation_loader
from mimbench.data.pipeline.transforms import DeviceTransform


def normalised_batches(
    split: ImageSplit,
    input_config: InputConfig,
    channels: int,
    *,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    first: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in order: (normalised images [B, channels, S, S] on the device, int64 labels [B] on the CPU).

    Clips are [B, channels, T, S, S].

    Args:
        channels: of the encoder.
        batch_size, rank, world_size, first: as for `evaluation_loader`.
    """
    transform = DeviceTransform(input_config, channels, train=False, batched=split.is_in_memory).to(device)
    loader = evaluation_loader(
        split,
        input_config,
        batch_size=batch_size,
        device=device,
        workers=workers,
        rank=rank,
        world_size=world_size,
        first=first,
    )
    for images, labels in loader:
        yield transform(images.to(device, non_blocking=True)), labels
