"""Several augmented views of each image, the same ones at every call."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mimbench.contract import ImageSplit, InputConfig
from mimbench.data.pipeline.loading import evaluation_loader
from mimbench.data.pipeline.transforms import DeviceTransform
from mimbench.seeds import derive_seed


def repeated_views(
    split: ImageSplit,
    input_config: InputConfig,
    channels: int,
    *,
    count: int,
    images: int,
    seed: int,
    device: torch.device,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Tensor]:
    """`count` views of each image of a split, batch by batch: float32 [B, count, C, S, S] on the device, normalised.

    Views are cropped on the device from whole images, or from evaluation crops of images in files.

    Args:
        input_config: its crop, flip and colours make the views.
        channels: of the encoder.
        images: per batch. A batch is the same on any number of processes.
        seed: of the crops, with the number of the batch.
        rank: yields the batches of this rank, every `world_size`-th.
    """
    transform = DeviceTransform(input_config, channels, train=True, batched=True).to(device)
    loader = evaluation_loader(
        split, input_config, batch_size=images, device=device, workers=workers, rank=rank, world_size=world_size
    )
    for turn, (batch, _) in enumerate(loader):
        generator = torch.Generator(device).manual_seed(derive_seed("views", seed, rank + turn * world_size))
        repeated = batch.to(device, non_blocking=True).repeat_interleave(count, dim=0)
        yield transform(repeated, generator).unflatten(0, (len(batch), count))
