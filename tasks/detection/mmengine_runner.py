"""mimbench's optimizer and learning rates for mmengine's Runner, so that an exported config trains as `run` does."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn

from mimbench.api import InputError, Schedule, build_optimizer
from mimbench_tasks.detection.config import DetectionTrain
from mimbench_tasks.detection.model import layer_rules


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class EncoderOptimizer:
    """Builds the optimizer of a DetectionTrain, with its layer decay, around a detector with an EncoderBackbone."""

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        """`optim_wrapper_cfg` is the wrapper's config; its "optimizer" has the fields of DetectionTrain."""
        self.wrapper = {key: value for key, value in optim_wrapper_cfg.items() if key != "optimizer"}
        self.train = DetectionTrain.model_validate(dict(optim_wrapper_cfg["optimizer"]))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        detector: Any = model.module if is_model_wrapper(model) else model
        rules = layer_rules(detector, detector.backbone.encoder, self.train.undecayed)
        optimizer = build_optimizer(detector, self.train, **rules)
        return OPTIM_WRAPPERS.build({"type": "OptimWrapper", **self.wrapper, "optimizer": optimizer})


@HOOKS.register_module()
class EncoderSchedule(Hook):
    """Sets learning rates and weight decay of each step as mimbench's engine does. mmengine's have no layer decay."""

    priority = "VERY_HIGH"

    def __init__(self, train: dict[str, Any]) -> None:
        """`train` has the fields of DetectionTrain."""
        self.train = DetectionTrain.model_validate(dict(train))
        self.schedule: Schedule | None = None

    def before_train(self, runner: Any) -> None:
        batches, accumulate = len(runner.train_dataloader), self.train.accumulate
        if batches % accumulate:
            raise InputError(
                f"an epoch has {batches} micro-batches, which is not a multiple of accumulate = {accumulate}: mmengine "
                "would accumulate across the end of an epoch, and mimbench drops the rest; choose another batch size, "
                "or accumulate = 1"
            )
        self.schedule = Schedule(self.train, batches // accumulate)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        assert self.schedule is not None
        step = min(runner.iter // self.train.accumulate, self.schedule.steps - 1)
        self.schedule.set_rates(runner.optim_wrapper.optimizer, step)
