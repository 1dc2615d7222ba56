"""A training that fails on one rank, or whose process is killed, ends on all ranks within seconds, with its message."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import time

import pytest
import torch

from helpers.noting import Probe, train
from mimbench import rank_watch
from mimbench.distributed import get_rank
from mimbench.engine.ranks import fails_together, process_group
from mimbench.errors import RunError


class Failing(Probe):
    def __init__(self, rank, how):
        super().__init__()
        self.rank, self.how = rank, how

    def training_step(self, batch, generator):
        if len(self.seen) == 3 and get_rank() == self.rank:
            if self.how == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise torch.OutOfMemoryError("CUDA out of memory") if self.how == "fills memory" else ValueError("no luck")
        return super().training_step(batch, generator)


def run(rank, failing, how, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    rank_watch.PATIENCE = 1.0
    with (
        (folder / f"{rank}.err").open("w") as err,
        contextlib.redirect_stderr(err),
        process_group(torch.device("cpu")),
    ):
        (folder / f"{rank}.ready").touch()
        fails_together(train)(Failing(failing, how), folder)


@pytest.mark.parametrize(
    ("failing", "how", "text"),
    [
        (1, "raises", "rank 1 failed: ValueError: no luck"),
        (0, "fills memory", "rank 0 failed: "),
        (1, "is killed", "rank 1 ended unexpectedly; it was killed"),
    ],
)
def test_all_end_within_seconds_with_its_message(failing, how, text, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = multiprocessing.get_context("forkserver").Process
    both = [start(target=run, args=(rank, failing, how, port, tmp_path), daemon=True) for rank in range(2)]
    for one in both:
        one.start()
    while not all((tmp_path / f"{rank}.ready").exists() for rank in range(2)):
        assert all(one.is_alive() for one in both)
        time.sleep(0.05)
    began = time.monotonic()
    for one in both:
        one.join(60)
    assert time.monotonic() - began < 30
    other = both[1 - failing]
    assert other.exitcode == 1
    assert both[failing].exitcode == (-signal.SIGKILL if how == "is killed" else 1)
    assert text in "".join((tmp_path / f"{rank}.err").read_text() for rank in range(2))
    assert "Traceback" not in (tmp_path / f"{1 - failing}.err").read_text()


def test_an_error_on_both_ranks_is_raised_as_before(monkeypatch):
    with rank_watch.training_together():  # nothing to watch in a single process
        pass
    with pytest.raises(RunError, match="no luck"):
        rank_watch.give_up(RunError("no luck"))
