"""Seeds, copies and comparisons of tensors, for checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's own generator within the block, as the engine does before each step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """The state as a checkpoint holds it: copies of all stored tensors."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in a tensor, or in nested lists, tuples, mappings and dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    if dataclasses.is_dataclass(value):
        return [t for field in dataclasses.fields(value) for t in tensors_in(getattr(value, field.name))]
    return []


def differ(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two tensors differ in shape, or by more than `tolerance` times the largest value."""
    if one.shape != other.shape:
        return True
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max()) > tolerance * max(float(one.abs().max()), 1e-6)
