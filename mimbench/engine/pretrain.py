"""A method as a Trainable: it gets augmented batches on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mimbench.contract import Batch, InputConfig, Method, StepOutput
from mimbench.data import DeviceTransform


class TrainableMethod(nn.Module):
    """A method as the engine trains it. The loader yields (uint8 images [B, C, h, w], int64 labels [B])."""

    def __init__(self, method: Method, input_config: InputConfig, *, channels: int, batched: bool) -> None:
        """batched: the loader yields whole images, which are cropped here on the device. Otherwise it crops them."""
        super().__init__()
        self.method = method
        self.transform = DeviceTransform(input_config, channels, train=True, batched=batched)

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = batch
        device = generator.device
        images = self.transform(images.to(device, non_blocking=True), generator)
        labels_for_method = labels.to(device, non_blocking=True) if "labels" in self.method.supervision else None
        return self.method.step(Batch(images, labels_for_method), generator)

    def after_step(self, progress: float) -> None:
        self.method.after_step(progress)

    def no_weight_decay(self) -> set[str]:
        return {f"method.{name}" for name in self.method.no_weight_decay()}
