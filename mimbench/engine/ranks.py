"""Several processes that run one command together (torchrun): who decides and writes, and how all fail as one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from mmengine.dist import all_gather_object, broadcast_object_list

from mimbench.distributed import get_rank, get_world_size
from mimbench.errors import RunError

Result = TypeVar("Result")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Within it the processes that torchrun started are one group; a process on its own is left alone."""
    alone = "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1
    if alone or torch.distributed.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield
    torch.distributed.destroy_process_group()  # after an error it may be in no state to


def on_first_rank(make: Callable[[], Result]) -> Result:
    """What `make` returns, or raises, on rank 0, which alone calls it; the others wait for it and get the same."""
    if get_world_size() == 1:
        return make()
    answer: list[tuple[Result, None] | tuple[None, Exception] | None] = [None]
    own: Exception | None = None
    if get_rank() == 0:
        try:
            answer = [(make(), None)]
        except Exception as error:
            own, answer = error, [(None, _portable(error))]
    broadcast_object_list(answer)
    assert answer[0] is not None
    result, failed = answer[0]
    if failed is not None:
        raise own or failed
    return result  # type: ignore[return-value]  # None only where `make` gives None


def on_all_ranks(work: Callable[[], Result]) -> Result:
    """What `work` returns on this rank. All ranks call it; where it fails on one, each raises that one's error.

    So all of them go the same way afterwards. (A rank that fails while the others wait for its gradients is found
    only when torch.distributed runs out of patience.)
    """
    if get_world_size() == 1:
        return work()
    failed: Exception | None = None
    try:
        result = work()
    except Exception as error:
        failed = error
    errors = all_gather_object(None if failed is None else _portable(failed))
    for rank, told in enumerate(errors):
        if told is not None:
            raise failed if failed is not None and rank == get_rank() else told
    return result


def _portable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")
