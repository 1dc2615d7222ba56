"""Runs a comparison in gloo processes."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable


def run_in_two(compare: Callable, *arguments: object, seconds: float = 120) -> None:
    """Fail unless compare(rank, port, *arguments, failures) ends well in both; it puts what is wrong into the queue."""
    codes, failures = exit_codes_of_two(compare, *arguments, seconds=seconds)
    assert codes == [0, 0]
    assert failures == [], "\n".join(map(str, failures))


def exit_codes_of_two(function: Callable, *arguments: object, seconds: float = 120) -> tuple[list[int | None], list]:
    """The exit codes of function(rank, port, *arguments, failures) in two processes, and what they put in the queue."""
    return exit_codes(2, function, *arguments, seconds=seconds)


def exit_codes(
    count: int, function: Callable, *arguments: object, seconds: float = 120
) -> tuple[list[int | None], list]:
    """As `exit_codes_of_two`, for `count` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    failures = context.Queue()
    processes = [
        context.Process(target=function, args=(rank, port, *arguments, failures), daemon=True) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    failed = []
    while not failures.empty():
        failed.append(failures.get())
    return [process.exitcode for process in processes], failed


def join(rank: int, port: int) -> None:
    """Make this process one of the two."""
    import torch

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
