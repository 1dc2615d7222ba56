"""A detector's training step for `mimbench plan`: all networks, and losses that need no values in place of mmdet's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from mimbench.api import DataSizes, Encoder, InputConfig, InputError, PlannedStep, StepOutput
from mimbench_tasks.detection.config import DetectionConfig
from mimbench_tasks.detection.model import DetectorTraining, build_detector

_OBJECTS = 0.25
"""Share of the sampled RoIs that are objects, at most (mmdet's `pos_fraction`); masks are predicted of these alone.
A detector at the start of its training finds fewer."""


class PlannedDetector(DetectorTraining):
    """Batches are images uint8 [B, C, H, W]. RoIs are spread equally over the levels of the pyramid."""

    def __init__(self, config: DetectionConfig, *model: Any) -> None:
        super().__init__(*model)
        self.rois = config.roi_samples

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        detector: Any = self.detector
        (images,) = batch
        preprocessor = detector.data_preprocessor
        maps = detector.extract_feat((images.float() - preprocessor.mean) / preprocessor.std)
        if not hasattr(detector, "roi_head"):
            return StepOutput(_dense_loss(detector.bbox_head(maps)))
        loss = _dense_loss(detector.rpn_head(maps))
        head, rois = detector.roi_head, len(images) * self.rois
        for extractor, box_head in zip(_each(head.bbox_roi_extractor), _each(head.bbox_head), strict=True):
            loss = loss + _loss(box_head(_pooled(extractor, maps, rois)))
        if head.with_mask:
            objects = round(rois * _OBJECTS)
            for extractor, mask_head in zip(_each(head.mask_roi_extractor), _each(head.mask_head), strict=True):
                loss = loss + _loss(mask_head(_pooled(extractor, maps, objects)))
        return StepOutput(loss)


def _each(module: nn.Module) -> list[Any]:
    """The parts of a cascade, or the one part."""
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def _pooled(extractor: Any, maps: tuple[Tensor, ...], rois: int) -> Tensor:
    """Features of so many RoIs, [K, C, h, w]."""
    levels = len(extractor.roi_layers)
    counts = [rois // levels + (level < rois % levels) for level in range(levels)]
    return torch.cat(
        [
            layer(level, torch.zeros(count, 5))
            for layer, level, count in zip(extractor.roi_layers, maps, counts, strict=False)
            if count
        ]
    )


def _dense_loss(predictions: Any) -> Tensor:
    """A focal loss of the scores of every cell, and L1 losses of the rest, with the levels joined as mmdet joins them.

    predictions: lists with a map [B, ?, h, w] per level; the first list has the scores.
    """
    scores, *others = [torch.cat([_rows(each) for each in maps]) for maps in predictions]
    truth = torch.zeros_like(scores)
    probability = scores.sigmoid()
    off = (1 - probability) * truth + probability * (1 - truth)
    weight = (0.25 * truth + 0.75 * (1 - truth)) * off.pow(2.0)
    loss = (F.binary_cross_entropy_with_logits(scores, truth, reduction="none") * weight).mean()
    return loss + _loss(others)


def _rows(maps: Tensor) -> Tensor:
    """[B, ?, h, w] -> [B * h * w, ?] in float32."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2).float()


def _loss(predictions: Any) -> Tensor:
    """An L1 loss of every prediction: as many numbers as mmdet's losses of boxes, classes and masks keep."""
    tensors = [each for each in tree_iter(predictions) if isinstance(each, Tensor)]
    return torch.stack([(each.float() - torch.zeros_like(each).float()).abs().mean() for each in tensors]).sum()


def planned_step(config: DetectionConfig, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep:
    """Raises InputError if the size of the scenes is not known."""
    longer = config.image_size or data.side
    if longer is None:
        raise InputError("task.image_size is not set, so the size of the scenes is not known; set it")
    shorter = config.shorter_side[-1] if config.shorter_side else longer
    divisor = config.padding(encoder)
    height, width = (-(-side // divisor) * divisor for side in (shorter, longer))
    detector = build_detector(config, encoder, images, classes=data.classes, seed=0)
    model = PlannedDetector(config, detector, config.train.undecayed)

    def batch(count: int) -> Any:
        return (torch.zeros(count, encoder.in_channels, height, width, dtype=torch.uint8),)

    note = f"detection: scenes of {height} x {width} px; matching of boxes and objects is not counted"
    return PlannedStep(model, batch, config.train, note)
