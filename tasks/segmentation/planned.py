"""A segmentor's training step for `mimbench plan`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import DataSizes, Encoder, InputConfig, InputError, PlannedStep, StepOutput
from mimbench_tasks.segmentation.config import SegmentationConfig
from mimbench_tasks.segmentation.model import SegmentorTraining, build_segmentor


class PlannedSegmentor(SegmentorTraining):
    """Batches are (images uint8 [B, C, H, W], labels int64 [B, H, W]). mmseg's accuracy, of values, is left out."""

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        segmentor, (images, labels) = self.segmentor, batch
        preprocessor = segmentor.data_preprocessor
        maps = segmentor.extract_feat((images.float() - preprocessor.mean) / preprocessor.std)
        loss = _loss(segmentor.decode_head(maps), labels)
        if segmentor.with_auxiliary_head:
            loss = loss + _loss(segmentor.auxiliary_head(maps), labels)
        return StepOutput(loss)


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean over pixels at the size of the labels, as mmseg takes it."""
    whole = F.interpolate(scores, labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(whole, labels, reduction="none", ignore_index=255).mean()


def planned_step(config: SegmentationConfig, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep:
    """Raises InputError if the side of the training images is not known."""
    side = config.crop_size or config.image_size or data.side
    if side is None:
        raise InputError("task.crop_size is not set, so the size of the training images is not known; set it")
    model = PlannedSegmentor(build_segmentor(config, config.adapt(encoder), data.pixel_classes, images, seed=0))

    def batch(count: int) -> Any:
        shape = (count, encoder.in_channels, side, side)
        return torch.zeros(shape, dtype=torch.uint8), torch.zeros(count, side, side, dtype=torch.long)

    return PlannedStep(model, batch, config.train)
