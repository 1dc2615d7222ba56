"""Trackers: where the curves of a training are sent besides its record. They are mmengine's visualization backends.

Nothing is sent anywhere unless `track` names a tracker. A tracker gets the label, the settings and the numbers of a
training. It gets and writes nothing about the user, the host, the git repository, the environment, the terminal or the
code, and usage reports to its makers are off. An error of a tracker does not stop a training.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import (
    AimVisBackend,
    BaseVisBackend,
    TensorboardVisBackend,
    WandbVisBackend,
    force_init_env,
)

from mimbench.advice import short_text
from mimbench.distributed import get_rank
from mimbench.errors import RunError
from mimbench.seeds import fork_rng

_LONGEST = 80
"""Characters of a key; W&B takes 128 in an id."""


@dataclass(frozen=True)
class Run:
    """One training, as trackers show it."""

    label: str
    """For people, such as "pretrain simmim seed 0"."""
    key: str
    """Of this training among all: an interrupted one that goes on has the same."""
    folder: Path
    """For files of trackers; it has folders for other trainings too."""
    config: Mapping[str, Any]
    """Settings, as plain data."""

    @property
    def place(self) -> str:
        """A hash of the folder: the same training in another results folder is another run."""
        return hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]


class _TensorBoard(TensorboardVisBackend):
    """TensorBoard, with the settings as JSON, and files whose names have "mimbench" in the place of the host's name."""

    def _init_env(self) -> None:
        from tensorboard.summary.writer import event_file_writer

        with patch.object(event_file_writer, "socket", SimpleNamespace(gethostname=lambda: "mimbench")):
            super()._init_env()

    def add_config(self, config: Config, **kwargs: Any) -> None:
        self.experiment.add_text("config", f"```\n{json.dumps(config.to_dict(), indent=1)}\n```")


class _Wandb(WandbVisBackend):
    """Weights & Biases. mmengine's backend uploads the code of the working folder with the config."""

    def add_config(self, config: Config, **kwargs: Any) -> None:
        self.experiment.config.update(config.to_dict(), allow_val_change=True)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        self.experiment.log(scalar_dict, step=step)

    def close(self) -> None:
        if hasattr(self, "_wandb"):
            self._wandb.finish()


class _MLflow(BaseVisBackend):
    """MLflow by its client. `mlflow.start_run`, as mmengine's backend uses it, tags user, script and git."""

    def __init__(self, folder: Path, uri: str, experiment: str, artifacts: str | None, label: str, key: str) -> None:
        """
        Args:
            artifacts: where files of a new experiment would be; None leaves it to the server.
        """
        super().__init__(str(folder))
        self._uri, self._experiment, self._artifacts, self._label, self._key = uri, experiment, artifacts, label, key

    def _init_env(self) -> None:
        import mlflow

        Path(self._save_dir).mkdir(parents=True, exist_ok=True)
        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient(tracking_uri=self._uri)
        known = self._client.get_experiment_by_name(self._experiment)
        number = known.experiment_id if known else self._client.create_experiment(self._experiment, self._artifacts)
        run = self._client.create_run(number, tags={"mimbench": self._key}, run_name=self._label)
        self._run_id = run.info.run_id

    @property
    @force_init_env
    def experiment(self) -> Any:
        return self._client

    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        values = _flatten(config.to_dict())
        params = [self._entities.Param(name, str(value)) for name, value in values.items()]
        self._client.log_batch(self._run_id, params=params)

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, float(value), now, step) for name, value in scalar_dict.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self) -> None:
        if hasattr(self, "_run_id"):
            self._client.set_terminated(self._run_id)


def _flatten(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flatten(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value})
    return flat


def _build_tensorboard(run: Run) -> BaseVisBackend:
    return _TensorBoard(str(run.folder / run.key))


def _build_wandb(run: Run) -> BaseVisBackend:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    off = ("disable_git", "disable_code", "disable_job_creation", "x_disable_stats", "x_disable_meta")
    settings = {
        **dict.fromkeys((*off, "x_disable_machine_info", "silent"), True),
        **dict.fromkeys(("save_code", "x_save_requirements"), False),
        **dict.fromkeys(("host", "username", "program"), "mimbench"),  # wandb looks them up otherwise
        "console": "off",
    }
    named = {"name": run.label, "id": f"{run.key}-{run.place}", "resume": "allow", "settings": settings}
    return _Wandb(str(run.folder), {"project": os.environ.get("WANDB_PROJECT", "mimbench"), **named})


def _build_mlflow(run: Run) -> BaseVisBackend:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    folder, uri = run.folder.resolve(), os.environ.get("MLFLOW_TRACKING_URI")
    return _MLflow(
        folder,
        # MLflow no longer writes plain folders, and without an address it would use the working folder.
        uri or f"sqlite:///{folder / 'mlflow.db'}",
        os.environ.get("MLFLOW_EXPERIMENT_NAME", "mimbench"),
        None if uri else (folder / "mlflow").as_uri(),
        run.label,
        run.key,
    )


def _build_aim(run: Run) -> BaseVisBackend:
    off = {"system_tracking_interval": None, "log_system_params": False, "capture_terminal_logs": False}
    named = {"repo": os.environ.get("AIM_REPO", str(run.folder)), "experiment": run.label}
    return AimVisBackend(None, {**named, **off})


BUILD: Mapping[str, Callable[[Run], BaseVisBackend]] = {
    "tensorboard": _build_tensorboard,
    "wandb": _build_wandb,
    "mlflow": _build_mlflow,
    "aim": _build_aim,
}
"""A backend for each of `trackers.TRACKERS`. Nothing is opened before its first call."""


class TrackingVisualizer(Visualizer):
    """mmengine's Visualizer for numbers. It has no figure, which would import matplotlib in every training."""

    def __init__(
        self, name: str, *, trackers: Sequence[str], run: Run, say: Callable[[str], None], **options: Any
    ) -> None:
        """Start the trackers on rank 0, so that one that cannot start ends the training before its first step.

        Raises:
            RunError: a tracker cannot start.
        """
        super().__init__(name, **options)
        self._run, self._say = run, say
        for tracker in dict.fromkeys(trackers if get_rank() == 0 else ()):
            try:
                with fork_rng(0, _used_device()):
                    backend = BUILD[tracker](run)
                    backend.add_config(Config({"label": run.label, **run.config}))
            except Exception as error:
                self.close()
                raise RunError(
                    f"{run.label}: tracker {tracker} cannot start: {short_text(error)}; mend it, or leave it out of "
                    "track"
                ) from error
            self._vis_backends[tracker] = backend

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        """Send numbers by name to all trackers. step: optimizer steps done."""
        self._each(lambda backend: backend.add_scalars(dict(scalar_dict), step))

    def close(self) -> None:
        self._each(lambda backend: backend.close())
        self._vis_backends.clear()

    def _each(self, act: Callable[[BaseVisBackend], None]) -> None:
        """Do something with each tracker, with random numbers as before. One that fails is left out from then on."""
        for name, backend in list(self._vis_backends.items()):
            try:
                with fork_rng(0, _used_device()):
                    act(backend)
            except Exception as error:  # the training is worth more
                del self._vis_backends[name]
                self._say(f"{self._run.label}: tracker {name} is left out from here on: {short_text(error)}")

    def _initialize_fig(self, fig_cfg: dict) -> tuple[Any, Any, Any]:
        return None, SimpleNamespace(get_dpi=lambda: None), None


def _used_device() -> torch.device | None:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_initialized() else None


def describe_visualizer(
    trackers: Sequence[str], label: str, identity: str, folder: Path, config: Mapping[str, Any], say: Callable
) -> dict[str, Any]:
    """The visualizer of a training, as mmengine's Runner builds it.

    Args:
        identity: names the training among all others; "" for one that has no name.
        folder: for files of trackers.
        config: settings, as plain data.
        say: prints a line.
    """
    key = re.sub(r"[^\w.-]+", "-", f"{label} {identity}").strip("-.")
    if len(key) > _LONGEST:
        key = f"{key[:_LONGEST]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return {"type": TrackingVisualizer, "trackers": trackers, "run": Run(label, key, folder, config), "say": say}
