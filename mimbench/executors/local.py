"""Workers on this machine: one per GPU, or several that share the CPU's cores."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import Field

from mimbench.contract.executor import Executor, Workers
from mimbench.engine.device import pick_device
from mimbench.errors import InputError
from mimbench.process_identity import PATTERN, has_ended, process_name
from mimbench.store.sealing import DAMAGE, write_json

_PROCESSES = "processes.json"
"""In the folder of the workers: the name of each process, by job."""


class Local(Executor):
    """Processes on this machine, each with one GPU, or with its share of the CPU's cores."""

    name = "local"
    poll_seconds = 1.0

    class Config(Executor.Config):
        threads: int | None = Field(None, ge=1)
        """Threads of each worker. None: the cores that this process may use, divided by `jobs`; OMP_NUM_THREADS in
        the environment has priority then."""

    config: Config

    def check(self, device: str) -> None:
        gpus = _gpus(device)
        if self.config.jobs and gpus and self.config.jobs > len(gpus):
            raise InputError(
                f"--jobs {self.config.jobs}: there are {len(gpus)} GPUs here, and each worker takes one; lower --jobs, "
                "or use --device cpu"
            )

    def submit(self, workers: Workers) -> list[str]:
        gpus = _gpus(workers.device)
        count = self.config.jobs or len(gpus) or 1
        share = str(max(1, len(os.sched_getaffinity(0)) // count))
        threads = str(self.config.threads or os.environ.get("OMP_NUM_THREADS", share))
        processes: dict[str, str] = {}
        for index in range(count):
            device = {"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {}
            job = f"worker-{index}"
            with self.log(workers, job).open("ab") as log:
                process = subprocess.Popen(
                    [*workers.command, str(index), job],
                    cwd=workers.directory,
                    env={**os.environ, "OMP_NUM_THREADS": threads, **device},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # neither Ctrl-C nor a closed terminal reaches it
                )
            processes[job] = process_name(process.pid)
            write_json(workers.folder / _PROCESSES, processes)
        return list(processes)

    def jobs(self, workers: Workers) -> Mapping[str, str]:
        """Those on this machine: on another one the same command starts more workers, which share the work."""
        return {job: f"running as process {pid}" for job, pid in _running(workers).items()}

    def log(self, workers: Workers, job: str) -> Path:
        return workers.folder / f"{job}.log"

    def cancel_command(self, workers: Workers) -> str:
        return f"kill {' '.join(map(str, _running(workers).values()))}".strip()


def _running(workers: Workers) -> dict[str, int]:
    """Number of the process of each worker that runs on this machine, by job."""
    names: dict[str, str] = {}
    with suppress(*DAMAGE):
        names = json.loads((workers.folder / _PROCESSES).read_text(encoding="utf-8"))
    matches = {job: re.fullmatch(PATTERN, name) for job, name in names.items()}
    return {job: int(match["pid"]) for job, match in matches.items() if match and has_ended(match) is False}


def _gpus(device: str) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; [] for workers on the CPU.

    Raises:
        InputError: the device is "cuda", and there is none.
    """
    if pick_device(device).type != "cuda":
        return []
    import torch

    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible or [str(index) for index in range(torch.cuda.device_count())]
