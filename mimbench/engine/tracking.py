"""Trackers: where the curves of a training are sent besides its record. They are mmengine's visualization backends.

Nothing is sent anywhere unless `track` names a tracker. Each is changed as little as its use here needs: no code, no
git state and no terminal output leaves the machine, and an error of a tracker does not stop a training.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import (
    AimVisBackend,
    BaseVisBackend,
    MLflowVisBackend,
    TensorboardVisBackend,
    WandbVisBackend,
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
    """TensorBoard, with the settings as JSON."""

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


class _MLflow(MLflowVisBackend):
    """MLflow. mmengine's backend uploads files of the work folder at the end."""

    def add_config(self, config: Config, **kwargs: Any) -> None:
        self.experiment.log_params(self._flatten(config.to_dict()))

    def close(self) -> None:
        if hasattr(self, "_mlflow"):
            self._mlflow.end_run()


def _build_tensorboard(run: Run) -> BaseVisBackend:
    return _TensorBoard(str(run.folder / run.key))


def _build_wandb(run: Run) -> BaseVisBackend:
    settings = {"console": "off", "disable_git": True, "save_code": False, "silent": True}
    named = {"name": run.label, "id": f"{run.key}-{run.place}", "resume": "allow", "settings": settings}
    return _Wandb(str(run.folder), {"project": os.environ.get("WANDB_PROJECT", "mimbench"), **named})


def _build_mlflow(run: Run) -> BaseVisBackend:
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mimbench")
    folder = run.folder.resolve()
    # MLflow no longer writes plain folders, and without an address it would use the working folder.
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
    return _MLflow(
        str(folder),
        experiment,
        run.label,
        {"mimbench": run.key},
        tracking_uri=uri,
        artifact_location=None if os.environ.get("MLFLOW_TRACKING_URI") else (folder / "mlflow").as_uri(),
    )


def _build_aim(run: Run) -> BaseVisBackend:
    return AimVisBackend(None, {"repo": os.environ.get("AIM_REPO", str(run.folder)), "experiment": run.label})


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
