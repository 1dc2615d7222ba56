"""Parts for tasks that are built on the models of mmdet and mmseg."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmcv.transforms import Compose
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import Registry
from torch import Tensor

from mimbench.contract import StepOutput
from mimbench.data.pipeline.transforms import per_channel


class PretrainedModule(BaseModule):
    """An mmengine module whose weights are already pretrained: `init_weights` leaves them as they are."""

    def init_weights(self) -> None:
        """Do nothing. mmengine's own version would call timm's initialiser, which overwrites pretrained weights."""
        self.is_init = True


class FollowsModelDevice:
    """Mixin for data preprocessors: batches go to the device of the model.

    mmengine's preprocessors learn their device only if `.to` is called on their direct owner. Inside any other module
    they would go on sending batches to the CPU.
    """

    mean: Tensor

    @property
    def device(self) -> torch.device:
        return self.mean.device


def compose_transforms(registry: Registry, scope: str, steps: Sequence[Mapping[str, Any]]) -> Compose:
    """Transforms built from their configs.

    Args:
        registry: of transforms, such as mmdet's TRANSFORMS.
        scope: "mmdet" or "mmseg". Without it, a name may mean mmcv's transform once an mmengine Runner has run.
        steps: one config per transform.
    """
    return Compose([registry.build({"_scope_": scope, **step}) for step in steps])


def mm_step_output(model: BaseModel, losses: Mapping[str, Any]) -> StepOutput:
    """The sum of the losses that an mm model returns, to optimise, and the single losses, to log."""
    total, parts = model.parse_losses(losses)
    # mmengine optimises the sum of everything whose name contains "loss", so the logged names must not contain it.
    logs = {key.replace("loss_", ""): value.detach() for key, value in parts.items() if key != "loss"}
    return StepOutput(total, logs)


def scale_to_bytes(values: tuple[float, ...], channels: int, name: str) -> list[float]:
    """input.mean or input.std (`name`) for pixels in [0, 255], one value per channel.

    Raises:
        InputError: the number of values is neither 1 nor `channels`.
    """
    per_channel(values, channels, name)  # checks the number of values
    return [255 * value for value in (values if len(values) == channels else values * channels)]


@contextmanager
def quiet_mmengine() -> Iterator[None]:
    """Silence mmengine, which logs the origin of every parameter on standard output."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
