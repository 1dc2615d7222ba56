"""Computations that mixed precision must not round."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast: float32 inputs are computed with in float32, also in a bf16 training.

    Use it for targets that the official code of a method computes outside of autocast.

    Args:
        device: of the tensors. On a device that has no autocast, such as "meta", the context does nothing.
    """
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Half precision as float32; float32 and float64 stay. So a loss is computed in no less than float32."""
    return values if values.dtype == torch.float64 else values.float()
