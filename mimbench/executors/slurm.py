"""Workers as an array of SLURM jobs, through submitit."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from mimbench.contract.executor import Executor, Workers, last_lines
from mimbench.errors import InputError, RunError
from mimbench.executors.slurm_task import Task, job_name
from mimbench.text import print_line

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
_SECONDS = 60
"""That a command of SLURM may take; a busy controller takes long."""


class Slurm(Executor):
    """An array of SLURM jobs. Each is one worker, with one process per GPU; a worker may span several nodes."""

    name = "slurm"

    class Config(Executor.Config):
        """None leaves a choice to the cluster's defaults."""

        partition: str | None = None
        nodes: int = Field(1, ge=1)
        """Nodes of each worker."""
        gpus_per_node: int = Field(0, ge=0)
        """Each GPU gets one process. 0: one process per node, on the CPU."""
        cpus: int | None = Field(None, ge=1)
        """Cores of each process: its data workers and itself."""
        memory: str | None = Field(None, pattern=r"^\d+[KMGT]?$")
        """Per node, such as "64G"; a plain number is MB."""
        time: str | int | None = None
        """Time limit of a job: minutes, or "HH:MM:SS", or "DAYS-HH:MM:SS"."""
        account: str | None = None
        constraint: str | None = None
        qos: str | None = None
        requeue: bool = True
        """A job that reaches its time limit, or is preempted, is queued again and continues from its saved state."""
        signal_seconds: int = Field(120, ge=1)
        """How long before the time limit the job is asked to save its state."""
        setup: tuple[str, ...] = ()
        """Shell commands before a worker starts, such as "module load cuda"."""
        python: str | None = None
        """The command that starts Python on the nodes, such as "apptainer exec --nv mimbench.sif python". None: this
        Python."""
        sbatch: dict[str, str | int | bool] = Field(default_factory=dict)
        """Further options of sbatch by their long name, such as {exclude = "node7"}."""

        @field_validator("time")
        @classmethod
        def _has_the_form_of_a_time(cls, value: str | int | None) -> str | int | None:
            if value is not None and not _TIME.fullmatch(str(value)):
                raise ValueError(f'{value!r} is no time limit; write minutes, "HH:MM:SS" or "DAYS-HH:MM:SS"')
            return value

        @property
        def minutes(self) -> int | None:
            return None if self.time is None else minutes_of(str(self.time))

    config: Config

    def check(self, device: str) -> None:
        if find_spec("submitit") is None:
            raise InputError('--executor slurm needs submitit: pip install "mimbench[slurm]"')
        for program in ("sbatch", "srun", "squeue"):
            if shutil.which(program) is None:
                raise InputError(
                    f"--executor slurm: there is no {program} on this machine; run the command on a login node of the "
                    "cluster, or with --executor local"
                )

    def submit(self, workers: Workers) -> list[str]:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        executor = SlurmExecutor(workers.folder, python=self.config.python)
        executor.update_parameters(**self._parameters(workers))
        count = self.config.jobs or 1
        try:
            with redirect_stderr(io.StringIO()), executor.batch():  # submitit prints what sbatch prints
                jobs = [executor.submit(Task(workers.folder, index, self.config.requeue)) for index in range(count)]
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
            raise InputError(f"SLURM does not accept the jobs: {_refusal(error)}") from error
        return [job.job_id for job in jobs]

    def jobs(self, workers: Workers) -> Mapping[str, str]:
        lines = _ask("squeue", "--noheader", "--array", f"--name={workers.name}", "--format=%i|%T|%r|%N").splitlines()
        states = {}
        for line in lines:
            job, state, reason, nodes = line.strip().split("|", 3)
            where = f" on {nodes}" if nodes else f" ({reason})" if reason not in ("", "None") else ""
            states[job] = f"{'waiting' if state == 'PENDING' else state.lower()}{where}"
        return states

    def log(self, workers: Workers, job: str) -> Path:
        return workers.folder / f"{job}_0_log.err"

    def last_words(self, workers: Workers, job: str) -> str:
        # srun reports the end of the process after the line with its reason.
        lines = [line for line in last_lines(self.log(workers, job)) if line and not line.startswith("srun:")]
        return next((line for line in reversed(lines) if "error" in line.lower()), super().last_words(workers, job))

    def cancel_command(self, workers: Workers) -> str:
        return f"scancel --name={workers.name}"

    def requeue(self) -> bool:
        if not self.config.requeue:
            return False
        try:
            _ask("scontrol", "requeue", job_name())
        except RunError as error:
            print_line(f"mimbench: the job is not put into the queue again: {error}", error=True)
            return False
        return True

    def _parameters(self, workers: Workers) -> dict[str, Any]:
        config = self.config
        passed = {
            "partition": config.partition,
            "account": config.account,
            "constraint": config.constraint,
            "qos": config.qos,
            "cpus_per_task": config.cpus,
            "mem": config.memory,
            "time": config.minutes,
        }
        more: dict[str, Any] = {"signal": f"USR1@{config.signal_seconds}"}
        more["requeue" if config.requeue else "no-requeue"] = True
        if config.gpus_per_node:
            more["gpus-per-node"] = config.gpus_per_node
        threads = f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{config.cpus or 1}}}"
        return {
            **passed,
            "job_name": workers.name,
            "nodes": config.nodes,
            "ntasks_per_node": max(1, config.gpus_per_node),
            # Since SLURM 22.05, srun does not take over the number of cores. A process that ends, ends all.
            "srun_args": ["--kill-on-bad-exit=1", *([f"--cpus-per-task={config.cpus}"] if config.cpus else [])],
            "setup": [threads, *config.setup],
            "additional_parameters": more | config.sbatch,
        }


def minutes_of(text: str) -> int:
    """Minutes of a time limit as sbatch has it: "90", "1:30:00", "2-12", "2-12:00:00". Seconds count as a minute."""
    match = _TIME.fullmatch(text)
    assert match is not None
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        hours += 24 * int(match["days"])
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return 60 * hours + minutes + (seconds > 0)


def _ask(*command: str) -> str:
    """What a command of SLURM prints.

    Raises:
        RunError: it fails, or gives no answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]} does not answer ({error})") from error
    if done.returncode != 0:
        raise RunError(f"{command[0]}: {_last_line(done.stderr) or f'exit code {done.returncode}'}")
    return done.stdout


def _refusal(error: Exception) -> str:
    """sbatch's own words."""
    text = getattr(error, "stderr", None) or str(error)
    lines = [line for line in str(text).splitlines() if "error:" in line] or str(text).strip().splitlines()[-1:]
    return "; ".join(dict.fromkeys(line.rpartition("error:")[2].strip() for line in lines))


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
