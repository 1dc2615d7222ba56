"""A Trainable as mmengine's Runner takes it, and the Runner without the parts that mimbench replaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from mimbench.contract import StepOutput
from mimbench.engine.sharding import is_split
from mimbench.engine.tracking import TrackingVisualizer
from mimbench.errors import RunError
from mimbench.plugin_source import location


class _PassThrough(nn.Module):
    """A data preprocessor that leaves batches as they are."""

    def forward(self, data: Any, training: bool = False) -> Any:
        return data


class RunnerModel(BaseModel):
    """A Trainable as an mmengine model.

    mmengine optimises the sum of all outputs whose name contains "loss"; this model returns exactly one.

    `generator` is the source of randomness of a step. `StepHook` seeds it before every step.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.data_preprocessor = _PassThrough()
        self.trainable: Any = model  # an nn.Module and a Trainable
        self.generator = torch.Generator(device)
        self.logs: dict[str, Tensor] = {}

    def init_weights(self) -> None:
        """Does nothing. mmengine would call the initialiser of every child, and overwrite loaded weights."""

    def forward(self, *batch: Any, mode: str = "loss", **named: Any) -> dict[str, Tensor]:
        output = self.trainable.training_step(named or batch, self.generator)
        # A TrainableMethod only passes the call on, so an error names the method.
        _check_output(output, getattr(self.trainable, "method", self.trainable))
        self.logs = dict(output.logs)
        return {"loss": output.loss}


def _check_output(output: Any, module: object) -> None:
    """Raise RunError if a training step returned something that torch would refuse without naming `module`."""
    if not isinstance(output, StepOutput):
        problem = f"must return StepOutput(loss, logs), not {type(output).__name__}"
    else:
        problem = _describe_output_problem(output)
    if problem:
        raise RunError(f"the training step of {type(module).__qualname__} {problem} ({place_of_step(module)})")


def _describe_output_problem(output: StepOutput) -> str:
    loss: Any = output.loss
    logs: Any = output.logs
    if not isinstance(loss, Tensor) or loss.dim():
        shape = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        return f"must return a scalar tensor as loss, not {shape}; take its mean or sum"
    if is_split(loss):
        return (
            'uses weights of a block outside of its forward pass, where parallel = "fsdp" has split them; '
            'set parallel to "ddp"'
        )
    if not loss.requires_grad:
        return "returns a loss without gradient: it depends on no trainable parameter, or was detached"
    if not isinstance(logs, Mapping):
        return f"must return a table of logs by name, not {logs!r}"
    for name, value in logs.items():
        if isinstance(value, Tensor) and value.numel() != 1:
            return f"must return scalar tensors as logs, not {name} of shape {list(value.shape)}"
        if not isinstance(value, float | int | Tensor):
            return f"must return scalar tensors as logs, not {name} = {value!r}"
    return ""


def place_of_step(module: object) -> str:
    """File and line of the training step of a method or another Trainable."""
    cls = type(module)
    return location(getattr(cls, "step", None) or getattr(cls, "training_step", cls))


class MinimalRunner(Runner):
    """mmengine's Runner on a given device, without its environment log, log file, config file and checkpoints."""

    def __init__(
        self, *, device: torch.device, restore: Callable[[], None], is_split: bool = False, **options: Any
    ) -> None:
        """
        Args:
            restore: called once, when model, optimizer and loop exist, to load the state of an interrupted run.
            is_split: the model shares its work among the ranks by itself (`mimbench.engine.sharding`).
        """
        self._device, self._restore, self._is_split = device, restore, is_split
        super().__init__(**options)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if self._is_split:
            return model
        model = model.to(self._device)
        if not self.distributed:
            return model
        # mmengine passes a GPU as device_ids even if the model is on the CPU.
        devices = [torch.cuda.current_device()] if self._device.type == "cuda" else None
        return MMDistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **options: Any) -> MMLogger:
        """A logger without a file. mmengine would keep one file open per training until the process ends."""
        return MMLogger.get_instance(name=self._experiment_name, log_level=log_level)

    def load_or_resume(self) -> None:
        """Load the state in mimbench's way. mmengine would unpickle any file, and ignore weights that do not match."""
        self._restore()

    def dump_config(self) -> None:
        """Does nothing. mmengine would write a config file, which would be almost empty, to the work folder."""

    def _init_model_weights(self) -> None:
        """mmengine sends rank 0's weights to all. DDP and `sharding.split` have done so."""

    def _log_env(self, env_cfg: dict) -> None:
        return


def release_run(name: str) -> None:
    """Drop the logger, message hub, visualizer and scope that mmengine keeps per run until the process ends.

    name: `experiment_name` as it was given. mmengine appends the time to it.
    """
    for kind in (MMLogger, MessageHub, Visualizer, TrackingVisualizer, DefaultScope):
        for key in [key for key in kind._instance_dict if key.startswith(name)]:
            del kind._instance_dict[key]
