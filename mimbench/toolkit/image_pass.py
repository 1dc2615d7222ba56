"""One pass of an encoder over images, for tasks that read more of it than its features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from mimbench.contract import Encoder, ImageSplit, TaskContext
from mimbench.data.pipeline.normalised import normalised_batches
from mimbench.data.pipeline.subsets import subset
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.ranks import map_over_ranks

Result = TypeVar("Result")


def sample_images(split: ImageSplit, most: int) -> ImageSplit:
    """At most `most` images of a split, in its order. They are the same for every method and seed."""
    return subset(split, sample_positions(len(split), most).tolist())


def sample_positions(count: int, most: int) -> Tensor:
    """At most `most` of the positions 0 to count - 1, rising, int64. They are the same for every method and seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:most].sort().values


def map_over_images(
    measure: Callable[[Tensor], Result],
    encoder: Encoder,
    images: ImageSplit,
    context: TaskContext,
    *,
    batch_size: int,
) -> list[Result]:
    """Call `measure` with each batch of images, without gradients and with the encoder in evaluation mode.

    Processes share the batches, and all of them get all results, in order.

    Args:
        measure: normalised images [B, C, S, S] on the device -> what is measured, picklable, its tensors on the CPU.
        batch_size: images per batch, whatever the number of processes.
    """
    encoder.to(context.device).eval()
    batches = normalised_batches(
        images,
        context.input,
        encoder.in_channels,
        batch_size=batch_size,
        device=context.device,
        rank=get_rank(),
        world_size=get_world_size(),
    )

    @torch.inference_mode()
    def of_batch(batch: tuple[Tensor, Tensor]) -> Result:
        return measure(batch[0])

    return map_over_ranks(of_batch, batches)
