"""Optimizer steps without a training around them, for measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mimbench.contract import TrainConfig
from mimbench.engine.acceleration import matrix_precision, set_channels_last
from mimbench.engine.adapter import RunnerModel
from mimbench.engine.device import pick_precision
from mimbench.engine.pretrain import TrainableMethod
from mimbench.engine.update import build_update
from mimbench.optim import build_optimizer, decay_rules


def make_step(model: TrainableMethod, config: TrainConfig, device: torch.device) -> Callable[[Any], None]:
    """A function of one micro-batch, as the loader yields it: forward, backward, and the update when it is due.

    It trains `model`, which is moved to the device, with the optimizer, precision, memory format, clipping and
    accumulation of `config`, at the peak learning rate.
    """
    precision = pick_precision(config, device)
    if config.channels_last:
        set_channels_last(model)
    adapter = RunnerModel(model.to(device), device).train()
    adapter.generator.manual_seed(0)
    optimizer = build_optimizer(model, config, **decay_rules(model))
    wrapper = build_update(optimizer, config, precision, device, lambda: model.before_update(0.0))
    model.before_epoch(0)

    def step(batch: Any) -> None:
        model.before_step(0.0, 0)
        with matrix_precision(precision, device):
            with wrapper.optim_context(adapter):
                loss = adapter(*batch)["loss"]
            wrapper.update_params(loss)
            if wrapper.should_update():
                model.after_step(0.0)

    return step
