"""Optimizer steps without a training around them, for measurements."""

from __future__ import annotations

from typing import Any

import torch

from mimbench.contract import TrainConfig
from mimbench.distributed import get_world_size
from mimbench.engine.acceleration import matrix_precision, set_channels_last
from mimbench.engine.adapter import RunnerModel
from mimbench.engine.device import pick_precision
from mimbench.engine.sharding import split
from mimbench.engine.update import build_update
from mimbench.optim import build_optimizer, decay_rules


class BareStep:
    """A function of one micro-batch, as the loader yields it: forward, backward, and the update when it is due.

    It trains `model`, which is moved to the device, with the optimizer, precision, memory format, clipping and
    accumulation of `config`, at the peak learning rate. Only `parallel = "fsdp"` joins processes; all of them make one.
    """

    def __init__(self, model: Any, config: TrainConfig, device: torch.device) -> None:
        """model: a Trainable."""
        self.model, self.device, self.precision = model, device, pick_precision(config, device)
        if config.channels_last:
            set_channels_last(model)
        if any(tensor.device != device for tensor in (*model.parameters(), *model.buffers())):
            model.to(device)  # even onto the same device, it fails for tensors without values
        self.adapter = RunnerModel(model, device).train()
        self.adapter.generator.manual_seed(0)
        if config.parallel == "fsdp" and get_world_size() > 1:
            split(self.adapter, device)
        self.optimizer = build_optimizer(model, config, **decay_rules(model))
        self.update = build_update(
            self.optimizer, config, self.precision, device, lambda: self._call("before_update", 0.0)
        )
        self._call("before_epoch", 0)

    def __call__(self, batch: Any) -> None:
        self._call("before_step", 0.0, 0)
        with matrix_precision(self.precision, self.device):
            with self.update.optim_context(self.adapter):
                loss = (self.adapter(**batch) if isinstance(batch, dict) else self.adapter(*batch))["loss"]
            self.update.update_params(loss)
            if self.update.should_update():
                self._call("after_step", 0.0)

    def _call(self, hook: str, *values: float) -> None:
        function = getattr(self.model, hook, None)
        if function:
            function(*values)
