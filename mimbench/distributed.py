"""This process's place among those that train together. Every room asks here, and nowhere else."""

from __future__ import annotations


def get_rank() -> int:
    """The number of this process among those that train together; 0 if it is the only one."""
    from torch import distributed

    return distributed.get_rank() if _is_initialized() else 0


def get_world_size() -> int:
    """How many processes train together; 1 if no group has been set up."""
    from torch import distributed

    return distributed.get_world_size() if _is_initialized() else 1


def _is_initialized() -> bool:
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()
