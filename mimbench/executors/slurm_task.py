"""What submitit starts in each process of a SLURM job. Only Python's own modules are imported before the first line
runs: until then a signal would end the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Task:
    """One process of a worker."""

    folder: Path
    """Of the submission."""
    index: int
    """Number of the worker."""
    requeues: bool
    """Whether a job that reaches its time limit goes back into the queue."""

    def __call__(self) -> None:
        """Ends the process with the exit code of the run."""
        signal.signal(signal.SIGUSR1, self._requeue_early)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit would ignore it
        _join()
        from mimbench.executors.worker import work

        sys.exit(work(self.folder, self.index, job_name()))

    def _requeue_early(self, number: int, frame: FrameType | None) -> None:
        """The signal before the time limit, while libraries are imported: nothing is there to be saved."""
        if os.environ.get("SLURM_PROCID", "0") != "0":
            sys.exit(0)  # another exit code would end the first process too
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.requeues:
            subprocess.run(["scontrol", "requeue", job_name()], check=False)
        sys.exit(128 + number)


def job_name() -> str:
    """The job that this process belongs to, as squeue and submitit name it.

    SLURM_JOB_ID of one element of an array is the number of the whole array.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]


def _join() -> None:
    """Set the variables by which torch finds the other processes of this worker, if there are any."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    if JobEnvironment().num_tasks > 1:
        # Each process sees all GPUs of its node and takes that of its LOCAL_RANK, as under torchrun.
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
