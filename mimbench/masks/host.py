"""Masks that are drawn in rounds until they fit: on the CPU, so that an accelerator is never waited for."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def host_generator(generator: torch.Generator) -> torch.Generator:
    """A generator on the CPU whose numbers follow from `generator`; that itself if it is on the CPU.

    Each call takes a number from `generator`, so that the next call gives another one. Its state is read on the host.
    """
    device = generator.device
    if device.type == "cpu":
        return generator
    state = generator.get_state().numpy().tobytes()
    torch.rand(1, generator=generator, device=device)
    seed = int.from_bytes(hashlib.sha256(state).digest()[:8], "little", signed=True)
    return torch.Generator().manual_seed(seed)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """`values` of the CPU on `device`. The copy to a GPU is queued behind its work, and not waited for."""
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)
