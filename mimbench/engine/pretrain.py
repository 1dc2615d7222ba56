"""A method as a Trainable: it gets augmented views of images on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mimbench.contract import Batch, Encoder, InputConfig, Method, PartOptions, StepOutput
from mimbench.data import DeviceTransform
from mimbench.seeds import derive_seed


class TrainableMethod(nn.Module):
    """A method as the engine trains it.

    The loader yields (uint8 images, int64 labels [B]). Images in memory are one tensor [B, C, h, w], from which each
    view is cropped here. Images from files are one tensor per view, cropped by the loader's workers.
    """

    def __init__(self, method: Method, views: Sequence[InputConfig], *, channels: int, batched: bool) -> None:
        """
        Args:
            views: as `Method.views` gives them.
            channels: of the images.
            batched: the loader yields whole images, which are cropped here on the device. Otherwise it crops them.
        """
        super().__init__()
        self.method, self.batched = method, batched
        transforms = [DeviceTransform(view, channels, train=True, batched=batched) for view in views]
        self.transforms = nn.ModuleList(transforms)
        self._progress = 0.0

    @property
    def trained_encoder(self) -> Encoder:
        return self.method.encoder

    def before_step(self, progress: float) -> None:
        self._progress = progress

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = batch
        device = generator.device
        sources = [images] * len(self.transforms) if self.batched or len(self.transforms) == 1 else images
        views = [
            transform(source.to(device, non_blocking=True), _generator_of_view(index, generator))
            for index, (transform, source) in enumerate(zip(self.transforms, sources, strict=True))
        ]
        labels_for_method = labels.to(device, non_blocking=True) if "labels" in self.method.supervision else None
        return self.method.step(Batch(tuple(views), labels_for_method, self._progress), generator)

    def before_update(self, progress: float) -> None:
        self.method.before_update(progress)

    def after_step(self, progress: float) -> None:
        self.method.after_step(progress)

    def no_weight_decay(self) -> set[str]:
        return {f"method.{name}" for name in self.method.no_weight_decay()}

    def optimizer_parts(self) -> dict[str, PartOptions]:
        return {f"method.{name}": options for name, options in self.method.optimizer_parts().items()}


def _generator_of_view(index: int, generator: torch.Generator) -> torch.Generator:
    """The generator that augments a view: that of the step for the first view, a separate one for each other view."""
    if index == 0:
        return generator
    return torch.Generator(generator.device).manual_seed(derive_seed("view", generator.initial_seed(), index))
