"""What the tasks on mmdet's and mmseg's models share."""

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


class KeptWeights(BaseModule):
    """A part whose weights are the ones it came with."""

    def init_weights(self) -> None:
        """Keep them: mmengine's own version would reach timm's initialiser and overwrite what was pretrained."""
        self.is_init = True


class OnModelDevice:
    """For preprocessors of batches: the device is that of the model.

    mmengine's own learn theirs only from their direct owner's `.to`; moved as part of any other module, they would
    go on sending batches to the CPU.
    """

    mean: Tensor

    @property
    def device(self) -> torch.device:
        return self.mean.device


def composed(registry: Registry, scope: str, steps: Sequence[Mapping[str, Any]]) -> Compose:
    """Transforms by name. Without its scope, a name may mean mmcv's: wherever mmengine's Runner ran before."""
    return Compose([registry.build({"_scope_": scope, **step}) for step in steps])


def step_output(model: BaseModel, losses: Mapping[str, Any]) -> StepOutput:
    """What the engine optimises and logs, of the losses that an mm model returns."""
    total, parts = model.parse_losses(losses)
    # Named without "loss": whatever mmengine finds under that name, it adds to what is optimised.
    logs = {key.replace("loss_", ""): value.detach() for key, value in parts.items() if key != "loss"}
    return StepOutput(total, logs)


def of_bytes(values: tuple[float, ...], channels: int, name: str) -> list[float]:
    """input.mean or input.std for pixels in [0, 255], one for each channel.

    Raises:
        InputError: as many values as neither 1 nor `channels`.
    """
    per_channel(values, channels, name)  # raises where they do not fit
    return [255 * value for value in (values if len(values) == channels else values * channels)]


@contextmanager
def quiet() -> Iterator[None]:
    """mmengine logs the origin of every parameter, on standard output."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
