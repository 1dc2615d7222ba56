"""Refuses models and batches that cannot fit into memory, before they are built."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from mimbench.contract import Method
from mimbench.contract.input import image_shape
from mimbench.distributed import get_world_size
from mimbench.errors import InputError
from mimbench.harness.planning.build import assemble
from mimbench.harness.planning.cells import Pretraining

_COPIES = 4
"""Numbers per parameter while AdamW trains: weight, gradient and two moments."""
_BYTES_PER_NUMBER = 4
"""In fp32."""
_SMALL_MODEL = 2**24
"""Numbers of a model that is counted by building it: 64 MiB."""
_SMALL_IMAGE = 256
"""Side in px. Tables of positions, which grow with the fourth power of it, are made before they are counted."""


def check_size(pretraining: Pretraining, device: torch.device) -> None:
    """Raise InputError if a batch of images or the model cannot fit. The estimate is a lower bound."""
    recipe, available = pretraining.recipe, memory_of(device)
    trains = pretraining.trains
    images = recipe.pretrain.micro_batch(get_world_size()) if trains else 1
    side = max([recipe.input.image_size, *([size for _, size in recipe.pretrain.image_sizes] if trains else [])])
    option = "input.image_size" if side == recipe.input.image_size else "the sizes in pretrain.image_sizes"
    frames = recipe.input.frames
    pixels = max(images, 1) * math.prod(image_shape(pretraining.channels, side, frames)) * _BYTES_PER_NUMBER
    what = f"a batch of {images} {'images' if frames == 1 else 'clips'} of {side} px"
    _require_memory(pixels, available, what, f"lower {option} or pretrain.batch_size, or raise pretrain.accumulate")
    advice = "lower the sizes in [encoder] and [method]"
    try:
        numbers = _count_numbers(pretraining)
    except InputError:
        raise
    except Exception:  # a plugin may need real weights to be built, and the real build reports what is wrong
        return
    _require_memory(
        numbers * _BYTES_PER_NUMBER, memory_of(torch.device("cpu")), f"the model of {pretraining.label}", advice
    )
    if trains:
        _require_memory(
            numbers * _BYTES_PER_NUMBER * _COPIES,
            available,
            f"the model of {pretraining.label} with its optimizer",
            advice,
        )


def memory_of(device: torch.device) -> int:
    """Total memory of a device, in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):  # the limit of a container; "max" stands for no limit
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(limits)


def _count_numbers(pretraining: Pretraining) -> int:
    """Numbers in all parameters and buffers.

    The model is built on the meta device, without memory for them. That takes seconds, in which torch imports its
    compiler, so a small model is built in memory instead.
    """
    if pretraining.recipe.input.image_size <= _SMALL_IMAGE:
        with suppress(Exception), _at_most(_SMALL_MODEL):
            return _numbers_of(_assemble(pretraining))
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # torch warns that weights loaded onto the meta device are ignored
        return _numbers_of(_assemble(pretraining))


def _assemble(pretraining: Pretraining) -> Method:
    recipe = pretraining.recipe
    return assemble(
        recipe.encoder,
        recipe.encoder_config,
        recipe.method_class(),
        recipe.method_config,
        image_size=recipe.input.image_size,
        channels=pretraining.channels,
        frames=recipe.input.frames,
        seed=0,
    )


def _numbers_of(method: Method) -> int:
    return sum(tensor.numel() for tensor in (*method.parameters(), *method.buffers()))


@contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Raise MemoryError when modules that are built within the context hold more numbers, before they are written."""
    total = 0

    def count(module: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        nonlocal total
        total += 0 if tensor is None else tensor.numel()
        if total > numbers:
            raise MemoryError

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _require_memory(needed: int, available: int, what: str, advice: str) -> None:
    if needed > available:
        raise InputError(
            f"{what} takes {needed / 2**30:,.0f} GiB at least, and there are {available / 2**30:,.0f} GiB; {advice}"
        )
