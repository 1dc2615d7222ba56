"""A method as a Trainable: it gets augmented views of images on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mimbench.contract import Batch, Encoder, Method, PartOptions, StepOutput
from mimbench.data import DeviceTransform, EncodedBatch, Views, ViewSchedule, decode_on, views_at
from mimbench.seeds import derive_seed


class TrainableMethod(nn.Module):
    """A method, or another module with a `step`, as the engine trains it.

    The loader yields (images, int64 labels [B]), images uint8 or float32 on the same scale. Images in memory are one
    tensor [B, C, h, w], from which each view is cropped here. Images from files are one tensor per view, cropped by the
    loader's workers, or an EncodedBatch, which is decoded and cropped here.
    """

    def __init__(
        self, method: nn.Module, views: Views, *, channels: int, batched: bool, shares_batch: bool = True
    ) -> None:
        """
        Args:
            method: has `step(batch, generator)`; the hooks of a Method are optional.
            views: as `Method.views` gives them; or, if their sizes change, as the loader has them.
            channels: of the images.
            batched: the loader yields whole images, which are cropped here on the device. Otherwise it crops them.
            shares_batch: see `mimbench.contract.Trainable`.
        """
        super().__init__()
        self.method: Any = method
        self.batched, self.views = batched, views
        transforms = [DeviceTransform(view, channels, train=True, batched=batched) for view in views_at(views, 0)]
        self.transforms: Any = nn.ModuleList(transforms)  # of DeviceTransform
        self.shares_batch = shares_batch
        self._progress, self._epoch = 0.0, 0

    @property
    def trained_encoder(self) -> Encoder | None:
        return self.method.encoder if isinstance(self.method, Method) else None

    def before_epoch(self, epoch: int) -> None:
        """Set the sizes of this epoch, from 0, for the images and the method, if they change."""
        if not isinstance(self.views, ViewSchedule):
            return
        views = self.views.at(epoch)
        for transform, view in zip(self.transforms, views, strict=True):
            transform.input = view
        self.method.set_image_size(views[0].image_size)

    def before_step(self, progress: float, epoch: int) -> None:
        self._progress, self._epoch = progress, epoch
        if isinstance(self.method, Method):
            self.method.progress = progress
        if hasattr(self.method, "before_step"):
            self.method.before_step(progress)

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = batch
        device = generator.device
        generators = [_generator_of_view(index, generator) for index in range(len(self.transforms))]
        if isinstance(images, EncodedBatch):
            decoded = decode_on(device, images)
            views = [
                transform.from_decoded(decoded, index, generators[index])
                for index, transform in enumerate(self.transforms)
            ]
        else:
            whole = [images] if isinstance(images, Tensor) else images
            sources = [one.to(device, non_blocking=True) for one in whole]
            if len(sources) == 1:
                sources *= len(self.transforms)
            views = [
                transform(*source_and_generator)
                for transform, *source_and_generator in zip(self.transforms, sources, generators, strict=True)
            ]
        needs_labels = "labels" in getattr(self.method, "supervision", ())
        labels_for_method = labels.to(device, non_blocking=True) if needs_labels else None
        return self.method.step(Batch(tuple(views), labels_for_method, self._progress, self._epoch), generator)

    def before_update(self, progress: float) -> None:
        if hasattr(self.method, "before_update"):
            self.method.before_update(progress)

    def after_step(self, progress: float) -> None:
        if hasattr(self.method, "after_step"):
            self.method.after_step(progress)

    def no_weight_decay(self) -> set[str]:
        names = self.method.no_weight_decay() if hasattr(self.method, "no_weight_decay") else ()
        return {f"method.{name}" for name in names}

    def extra_weight_decay(self) -> set[str]:
        names = self.method.extra_weight_decay() if hasattr(self.method, "extra_weight_decay") else ()
        return {f"method.{name}" for name in names}

    def optimizer_parts(self) -> dict[str, PartOptions]:
        parts = self.method.optimizer_parts() if hasattr(self.method, "optimizer_parts") else {}
        return {f"method.{name}": options for name, options in parts.items()}


def _generator_of_view(index: int, generator: torch.Generator) -> torch.Generator:
    """The generator that augments a view: that of the step for the first view, a separate one for each other view."""
    if index == 0:
        return generator
    return torch.Generator(generator.device).manual_seed(derive_seed("view", generator.initial_seed(), index))
