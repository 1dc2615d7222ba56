"""Several processes that run one command together (torchrun): rank 0 decides and writes, and all fail as one.

Two decorators keep the ranks in step. All ranks call a decorated function, in the same order:

on_first_rank    Rank 0 runs the function; every rank returns its result, or raises its error.
fails_together   Every rank runs the function; if it fails on one, it fails on all.

`map_over_ranks` shares independent work among the ranks, and returns its results in order on all of them.
"""

from __future__ import annotations

import functools
import os
import pickle
import platform
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import _get_default_store

from mimbench.distributed import get_rank, get_world_size
from mimbench.errors import RunError
from mimbench.process_identity import this_process
from mimbench.rank_watch import forget_problem, give_up, watching

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Item = TypeVar("Item")

_is_first_rank_alone: ContextVar[bool] = ContextVar("_is_first_rank_alone", default=False)
"""Whether this code runs within an `on_first_rank` function, so that no other rank makes the same calls."""
_LONGEST = timedelta(days=30)
"""How long ranks wait for the one that works. The groups that train give up after 10 or 30 minutes."""
_object_groups: weakref.WeakKeyDictionary[ProcessGroup, ProcessGroup] = weakref.WeakKeyDictionary()
_places: list[tuple[str, str]] = []
"""Node and device of each process of a group, by rank."""


def describe_processes() -> dict[str, Any]:
    """How many processes run together, on how many nodes, and on which devices, for records and cards.

    Without a group there is one process, and its device is noted elsewhere.
    """
    if not _places:
        return {"processes": get_world_size(), "nodes": 1}
    nodes, devices = zip(*_places, strict=True)
    return {"processes": len(_places), "nodes": len(set(nodes)), "devices": dict(sorted(Counter(devices).items()))}


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started into one group. Does nothing for a single process.

    The backend is nccl on CUDA devices and gloo on CPUs.
    """
    is_single = "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1
    if is_single or torch.distributed.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    _places[:] = gather_on_all((platform.node(), name))
    with watching(_get_default_store(), get_rank(), gather_on_all(this_process())):
        yield
    _places.clear()
    # Not in a `finally`: after an error the other ranks may never arrive here, and the call could hang.
    torch.distributed.destroy_process_group()


def on_first_rank(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function that only rank 0 runs, such as a write to the results folder.

    All ranks call it, wait for rank 0, and return its result or raise its error. The result must be picklable.
    Within such a function another one is called directly, since no other rank is there to take part.
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if get_world_size() == 1 or _is_first_rank_alone.get():
            return function(*args, **kwargs)
        message: list[tuple[list[Result], Exception | None]] = [([], None)]
        original: Exception | None = None
        if get_rank() == 0:
            token = _is_first_rank_alone.set(True)
            try:
                message = [([function(*args, **kwargs)], None)]
            except Exception as error:
                original, message = error, [([], _picklable(error))]
            finally:
                _is_first_rank_alone.reset(token)
        try:
            torch.distributed.broadcast_object_list(message, src=0, group=_object_group())
        except RuntimeError as error:  # a process is gone
            give_up(original or error)
        results, error_of_first = message[0]
        if error_of_first is not None:
            raise original or error_of_first  # rank 0 raises its own error, with its traceback
        return results[0]

    return call


def fails_together(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function that all ranks run: if it fails on any, every rank raises the error of the first such rank.

    So all ranks take the same path afterwards. If a rank fails while the others wait for its gradients, they end; see
    `mimbench.rank_watch`.
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if get_world_size() == 1:
            return function(*args, **kwargs)
        local: Exception | None = None
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            local = error
        errors = gather_on_all(None if local is None else _picklable(local), because=local)
        if any(errors):
            forget_problem()
        for rank, error_of_rank in enumerate(errors):
            if error_of_rank is not None:
                raise local if local is not None and rank == get_rank() else error_of_rank
        return result

    return call


def gather_on_all(value: Result, *, because: Exception | None = None) -> list[Result]:
    """The picklable values of all ranks in their order. All ranks call it.

    because: the error of this rank, for the message if the others do not answer.
    """
    if get_world_size() == 1:
        return [value]
    values: list = [None] * get_world_size()
    try:
        torch.distributed.all_gather_object(values, value, group=_object_group())
    except RuntimeError as error:  # a process is gone
        give_up(because or error)
    return values


def gather_on_first(value: Result) -> list[Result]:
    """The picklable values of all ranks in their order, on rank 0; [] on the others. All ranks call it."""
    if get_world_size() == 1:
        return [value]
    values: list | None = [None] * get_world_size() if get_rank() == 0 else None
    try:
        torch.distributed.gather_object(value, values, dst=0, group=_object_group())
    except RuntimeError as error:  # a process is gone
        give_up(error)
    return values or []


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """The items of this rank: every n-th of n ranks, from its own number on."""
    return items[get_rank() :: get_world_size()]


def map_over_ranks(function: Callable[[Item], Result], share: Iterable[Item]) -> list[Result]:
    """Run `function` on all items, each on one rank. All ranks call it.

    Args:
        function: its results must be picklable; those that are tensors should be on the CPU. If it fails on one rank,
            the error is raised on all.
        share: the items of this rank, as `own_share` or a loader with `rank` and `world_size` gives them.

    Returns:
        The results of all ranks in the order of the items, as one process has them.
    """
    shares = gather_on_all(_run_share(function, share))
    return [share[turn] for turn in range(len(shares[0])) for share in shares if turn < len(share)]


@fails_together
def _run_share(function: Callable[[Item], Result], share: Iterable[Item]) -> list[Result]:
    return [function(item) for item in share]


def _object_group() -> ProcessGroup:
    """A group on the CPU for objects. NCCL's would need GPU memory, and keep a GPU busy while it waits."""
    world = torch.distributed.group.WORLD
    assert isinstance(world, ProcessGroup)
    if world not in _object_groups:
        group = torch.distributed.new_group(backend="gloo", timeout=_LONGEST)
        assert isinstance(group, ProcessGroup)
        _object_groups[world] = group
    return _object_groups[world]


def _picklable(error: Exception) -> Exception:
    """A copy of the error without its traceback, or a RunError with its text if the class cannot be pickled."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")
