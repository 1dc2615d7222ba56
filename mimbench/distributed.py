"""This process's place among those that train together. Every room asks here, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


def get_rank() -> int:
    """The number of this process among those that train together; 0 if it is the only one."""
    from torch import distributed

    return distributed.get_rank() if _is_initialized() else 0


def get_world_size() -> int:
    """How many processes train together; 1 if no group has been set up."""
    from torch import distributed

    return distributed.get_world_size() if _is_initialized() else 1


def average_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of floating point tensors of one shape over all processes, which all call it. It has no gradient.

    Returns:
        A new tensor; in a single process, a copy.
    """
    return reduce_over_ranks(tensor, "sum") / get_world_size()


def reduce_over_ranks(tensor: Tensor, kind: Literal["sum", "max"]) -> Tensor:
    """The sum or largest values of tensors of one shape over all processes, which all call it. It has no gradient.

    Returns:
        A new tensor; in a single process, a copy.
    """
    import torch

    result = tensor.detach().clone(memory_format=torch.contiguous_format)
    if get_world_size() > 1:
        operation = torch.distributed.ReduceOp.SUM if kind == "sum" else torch.distributed.ReduceOp.MAX
        torch.distributed.all_reduce(result, operation)
    return result


def _is_initialized() -> bool:
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()
