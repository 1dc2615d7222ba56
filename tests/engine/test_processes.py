"""Two processes that train together: stopped within an epoch, they go on to the same weights and the same history."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
from contextlib import nullcontext, suppress
from types import SimpleNamespace

import pytest
import torch

from helpers.noting import Probe, train
from mimbench.distributed import get_rank
from mimbench.engine import saving
from mimbench.errors import Interrupted, LeaseLost, RunError
from mimbench.leases import confirm_leases, hold_lease


class DiffersPerRank(Probe):
    """Its losses differ between the processes; one of them gets a signal within its n-th step."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.stop_at = stop_at

    def training_step(self, batch, generator):
        if len(self.seen) + 1 == self.stop_at and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, generator)


def stop_and_go_on(rank, port, folder):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    whole, resumed = DiffersPerRank(), DiffersPerRank()
    report, _ = train(whole, folder / "whole")
    for step, further in ((3, 3), (9, 6), (13, 4)):
        with pytest.raises(Interrupted, match=f"saved after step {step % 5} of 5 in epoch {step // 5 + 1}"):
            train(DiffersPerRank(stop_at=further), folder / "work")
    again, _ = train(resumed, folder / "work")
    assert torch.equal(whole.linear.weight, resumed.linear.weight)
    assert again.loss == report.loss
    if rank == 0:
        (folder / "full" / "step_5.pth").mkdir(parents=True)
    torch.distributed.barrier()
    with pytest.raises(OSError, match="Is a directory"):  # the first writes alone, and both stop
        train(DiffersPerRank(), folder / "full")
    save_by_minutes(rank, folder)
    end_together(rank, folder)
    torch.distributed.destroy_process_group()


def save_by_minutes(rank, folder):
    """Each step takes 25 seconds, by the first rank's clock; the other's stands still."""
    model = DiffersPerRank()
    model.fail_at = 14
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: 0 if rank else 25.0 * len(model.seen)))
        with pytest.raises(RunError):
            train(model, folder / "minutes", checkpoint_every=1000, checkpoint_minutes=1.0)
    assert sorted(path.name for path in (folder / "minutes").glob("*.pth")) == ["step_12.pth", "step_9.pth"]


def end_together(rank, folder):
    """The first rank, which alone holds the lease, loses it within its third step."""

    class TakenOver(DiffersPerRank):
        def training_step(self, batch, generator):
            if len(self.seen) == 2 and rank == 0:
                shutil.rmtree(folder / "k.lease")
                with suppress(LeaseLost):
                    confirm_leases()
            return super().training_step(batch, generator)

    model = TakenOver()
    with hold_lease(folder / "k", "train") if rank == 0 else nullcontext(), pytest.raises(LeaseLost, match="train: st"):
        train(model, folder / "lost")
    assert len(model.seen) == 3


def test_two_processes_go_on_to_the_same_history(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = multiprocessing.get_context("forkserver").Process
    processes = [start(target=stop_and_go_on, args=(rank, port, tmp_path), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
