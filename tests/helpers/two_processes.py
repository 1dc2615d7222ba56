"""Runs a comparison in two gloo processes."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable


def run_in_two(compare: Callable, seconds: float = 120) -> None:
    """Fail unless compare(rank, port, failures) ends well in both; it puts what is wrong into the queue."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    failures = context.Queue()
    processes = [context.Process(target=compare, args=(rank, port, failures), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    assert [process.exitcode for process in processes] == [0, 0]
    assert failures.empty(), failures.get()
