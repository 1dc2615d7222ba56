"""Refuses models and batches that cannot fit into the machine's memory, before they are made."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path

import torch

from mimbench.distributed import get_world_size
from mimbench.errors import InputError
from mimbench.harness.planning.build import assemble
from mimbench.harness.planning.cells import Pretraining

_STATES = 4
"""Copies of each parameter that AdamW keeps while it trains: weight, gradient and two moments."""
_BYTES = 4
"""Of a number in fp32."""


def check_size(pretraining: Pretraining, device: torch.device) -> None:
    """Raise InputError for an image size or a model that cannot fit, by the least that it would take."""
    recipe, available = pretraining.recipe, memory_of(device)
    trains = recipe.method_class().pretrains and not pretraining.checkpoint
    images = recipe.pretrain.micro_batch(get_world_size()) if trains else 1
    pixels = max(images, 1) * pretraining.channels * recipe.input.image_size**2 * _BYTES
    what = f"a batch of {images} images of {recipe.input.image_size} px"
    _refuse(pixels, available, what, "lower input.image_size or pretrain.batch_size")
    advice = "lower the sizes in [encoder] and [method]"
    try:
        numbers = _count(pretraining)
    except InputError:
        raise
    except Exception:  # a plugin may need real weights to be built, and the real build reports what is wrong
        return
    _refuse(numbers * _BYTES, memory_of(torch.device("cpu")), f"the model of {pretraining.label}", advice)
    if trains:
        _refuse(numbers * _BYTES * _STATES, available, f"the model of {pretraining.label} with its optimizer", advice)


def memory_of(device: torch.device) -> int:
    """Bytes that a device has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):  # a container's limit; "max" means none
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(limits)


def _count(pretraining: Pretraining) -> int:
    """Numbers in all parameters and buffers; the model is built without memory for them."""
    recipe = pretraining.recipe
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # weights that a method loads go nowhere here
        method = assemble(
            recipe.encoder_class(),
            recipe.encoder_config,
            recipe.method_class(),
            recipe.method_config,
            image_size=recipe.input.image_size,
            channels=pretraining.channels,
            seed=0,
        )
    return sum(tensor.numel() for tensor in (*method.parameters(), *method.buffers()))


def _refuse(needed: int, available: int, what: str, advice: str) -> None:
    if needed > available:
        raise InputError(
            f"{what} takes {needed / 2**30:,.0f} GiB at least, and there are {available / 2**30:,.0f} GiB; {advice}"
        )
