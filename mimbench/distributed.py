"""This process's place among those that train together. Every room asks here, and nowhere else."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Ranks(Protocol):
    """A stand-in for the group of processes, such as threads of a test."""

    size: int

    @property
    def rank(self) -> int: ...

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, in their order. All ranks call it."""


_stand_in: Ranks | None = None


@contextmanager
def standing_in(ranks: Ranks) -> Iterator[None]:
    """Within this context, all functions of this module ask `ranks` instead of torch.distributed."""
    global _stand_in
    before, _stand_in = _stand_in, ranks
    try:
        yield
    finally:
        _stand_in = before


def get_rank() -> int:
    """The number of this process among those that train together; 0 if it is the only one."""
    from torch import distributed

    if _stand_in is not None:
        return _stand_in.rank
    return distributed.get_rank() if _is_initialized() else 0


def get_world_size() -> int:
    """How many processes train together; 1 if no group has been set up."""
    from torch import distributed

    if _stand_in is not None:
        return _stand_in.size
    return distributed.get_world_size() if _is_initialized() else 1


def average_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of floating point tensors of one shape over all processes, which all call it. It has no gradient.

    Returns:
        A new tensor; in a single process, a copy.
    """
    return reduce_over_ranks(tensor, "sum") / get_world_size()


def mean_over_ranks(tensor: Tensor, *, differentiable: bool = False) -> Tensor:
    """The mean of `tensor` over all processes. All ranks call it, with tensors of one shape and dtype.

    Args:
        tensor: floating point, any shape. It is not changed.
        differentiable: gradients flow back to the tensors of all ranks, for a loss on the mean. Then all ranks must
            run the backward pass too. Otherwise the result has no gradient, as centres and statistics need.

    Returns:
        A new tensor; in a single process, a copy.
    """
    if not differentiable:
        return average_over_ranks(tensor)
    return _mean_with_gradient().apply(tensor) if get_world_size() > 1 else tensor.clone()


def reduce_over_ranks(tensor: Tensor, kind: Literal["sum", "max"]) -> Tensor:
    """The sum or largest values of tensors of one shape over all processes, which all call it. It has no gradient.

    Returns:
        A new tensor; in a single process, a copy.
    """
    import torch

    result = tensor.detach().clone(memory_format=torch.contiguous_format)
    if _stand_in is not None:
        tensors = torch.stack(_stand_in.gather(result))
        return tensors.sum(0) if kind == "sum" else tensors.amax(0)
    if get_world_size() > 1:
        operation = torch.distributed.ReduceOp.SUM if kind == "sum" else torch.distributed.ReduceOp.MAX
        torch.distributed.all_reduce(result, operation)
    return result


def gather_over_ranks(tensor: Tensor) -> Tensor:
    """The rows of all processes, one process after the other. All call it, with tensors of one shape. No gradient.

    Returns:
        A new tensor with as many times the rows; in a single process, a copy.
    """
    import torch

    local = tensor.detach().clone(memory_format=torch.contiguous_format)
    if _stand_in is not None:
        return torch.cat(_stand_in.gather(local))
    if get_world_size() == 1:
        return local
    parts = [torch.empty_like(local) for _ in range(get_world_size())]
    torch.distributed.all_gather(parts, local)
    return torch.cat(parts)


@functools.cache
def _mean_with_gradient() -> Any:
    import torch

    class Mean(torch.autograd.Function):
        """Each rank's loss depends on every rank's tensor, so that its gradient is the mean over the ranks as well."""

        @staticmethod
        def forward(context: Any, tensor: Tensor) -> Tensor:
            return average_over_ranks(tensor)

        @staticmethod
        def backward(context: Any, *gradients: Tensor) -> Tensor:
            return average_over_ranks(gradients[0])

    return Mean


def _is_initialized() -> bool:
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()
