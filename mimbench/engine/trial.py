"""The largest micro-batch that a device takes, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mimbench.advice import is_out_of_memory
from mimbench.contract import PlannedStep
from mimbench.distributed import get_world_size, reduce_over_ranks
from mimbench.engine.bare_step import BareStep

_FULL = 0.95
"""Share of a GPU's memory from which on a trial counts as out of memory: a training has other fragments."""


def largest_that_runs(run: Callable[[int], None], sizes: Sequence[int], device: torch.device) -> int | None:
    """The first of `sizes` that runs on every rank; None: not even the last. All ranks call it.

    Args:
        run: makes a few steps with a micro-batch of this size.
        sizes: of micro-batches, falling.
        device: whose memory is freed after a trial.

    Raises:
        Exception: what `run` raises, except for errors of memory.
    """
    for size in sizes:
        too_large = False
        if device.type == "cuda":  # or a trial that ran out of memory would count as the peak of those after it
            torch.cuda.reset_peak_memory_stats(device)
        try:
            run(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            too_large = True
        gc.collect()  # outside of `except`, where the error would keep the tensors alive
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if not _on_any_rank(too_large, device):
            return size
    return None


def try_steps(build: Callable[[], PlannedStep], changes: dict[str, Any], device: torch.device, images: int) -> None:
    """Two optimizer steps of two micro-batches each, as a training with accumulated gradients makes them.

    Args:
        changes: of the training's options.

    Raises:
        torch.OutOfMemoryError: they do not fit, or leave almost nothing.
    """
    planned = build()
    config = planned.config.model_copy(update={**changes, "accumulate": 2})
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        step, batch = BareStep(planned.model, config, device), planned.batch(images)
        # Gradients of several ranks are summed in buckets.
        trained = sum(value.numel() for value in planned.model.parameters() if value.requires_grad)
        buckets = torch.empty(trained if get_world_size() > 1 else 0, device=device)
        for _ in range(4):
            step(batch)
        del buckets
    if cuda:
        torch.cuda.synchronize(device)
        if torch.cuda.max_memory_reserved(device) > _FULL * torch.cuda.get_device_properties(device).total_memory:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {images} images leave less than {1 - _FULL:.0%}")


def _on_any_rank(value: bool, device: torch.device) -> bool:
    return bool(reduce_over_ranks(torch.tensor(float(value), device=device), "max"))
