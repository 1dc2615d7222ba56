"""What the frozen segmentation tasks have in common: their data, metrics and results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import (
    IGNORED,
    Confusion,
    Dataset,
    Encoder,
    FitReport,
    Measured,
    Metric,
    Panel,
    SemanticSplit,
    Task,
    TaskContext,
    TaskResult,
    constant_score,
    derive_seed,
    draw_predictions,
    per_class,
    require_grey_or_rgb,
    train_and_test,
)
from mimbench_tasks.dense.config import FrozenSegmentationConfig, resolution
from mimbench_tasks.dense.images import PixelImages, Sample, resize_nearest

Scored = tuple[Confusion, list[Panel]]


class FrozenSegmentation(Task):
    """mIoU, and mean and pixel accuracy, over all pixels of the test images; see `Confusion.scores`.

    Every metric's n is the number of test images. `details` has the resolutions, and every class's IoU.
    """

    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"masks"})
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"any-size"})
    metrics: ClassVar[tuple[Metric, ...]] = tuple(
        Metric(name, "percent", 0.0, 100.0) for name in ("mIoU", "mAcc", "aAcc")
    )
    default_protocol: ClassVar[str | None] = "default"
    default_dataset: ClassVar[str | None] = "digit-scenes"
    config: FrozenSegmentationConfig

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        """Raises InputError for layers, sizes or data that do not suit."""
        require_grey_or_rgb(encoder.in_channels, "the encoder", self.name)
        self.config.check_encoder(encoder)
        train_and_test(dataset)

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        """Frozen maps, losses that are means over pixels and shared batch norms are the same on any number."""
        return ""

    def chance(self, dataset: Dataset) -> float:
        """Answering the most frequent class of the training images everywhere, at the original resolution."""
        train, test = train_and_test(dataset)
        return constant_score(train.counts(), test.counts())

    def evaluation_images(
        self, split: SemanticSplit, encoder: Encoder, indices: Sequence[int] | None = None
    ) -> PixelImages:
        """Images of `split` as they are evaluated, or those at `indices`."""
        return PixelImages(
            split, split.labels, self.config, channels=encoder.in_channels, unknown=IGNORED, indices=indices
        )

    def result(
        self,
        parts: Iterable[Scored],
        encoder: Encoder,
        test: SemanticSplit,
        context: TaskContext,
        details: dict[str, Any],
        curves: dict[str, list[float]],
        cost: FitReport | None = None,
    ) -> TaskResult:
        """The result of the scored batches of the test images, in order."""
        config, total = self.config, Confusion(len(test.classes))
        panels: list[Panel] = []
        for confusion, shown in parts:
            total.merge(confusion)
            panels += shown
        scores = total.scores()
        values = {"mIoU": scores.mean_iou, "mAcc": scores.mean_accuracy, "aAcc": scores.accuracy}
        mask = f"{config.mask_size} x {config.mask_size} px" if config.mask_size else "the images' original pixels"
        picture = draw_predictions(context.workdir / "predictions.png", panels[: config.pictures], test.classes)
        return TaskResult(
            {name: Measured(value, len(test)) for name, value in values.items()},
            curves=curves,
            artifacts={"predictions": picture},
            details={
                **details,
                "resolution": resolution(config, encoder, mask),
                "pixels": sum(scores.pixels),
                "per_class": per_class(scores, test.classes),
            },
            cost=cost,
            pixels=total.pixels(),
        )

    def masks(self, sample: Sample) -> Tensor:
        """Labels of an evaluated image at the size at which they are compared, on the CPU."""
        side = self.config.mask_size
        return sample.target if side is None else resize_nearest(sample.target, (side, side))

    def compare(self, samples: Sequence[Sample], answers: Sequence[Tensor], classes: int, pictures: int) -> Scored:
        """Counts of a batch, and panels of its first images. answers: classes [H, W] at the size of `masks`."""
        panels: list[Panel] = []
        confusion = Confusion(classes)
        for sample, answer in zip(samples, answers, strict=True):
            truth = self.masks(sample)
            confusion.add(truth, answer.cpu())
            if len(panels) < pictures:
                panels.append(Panel(sample.image.permute(1, 2, 0).numpy(), truth.numpy(), answer.cpu().numpy()))
        return confusion, panels


def decide(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Scores [K, H, W] -> the class of the highest one, int64 [*size], after bilinear resizing."""
    if tuple(scores.shape[-2:]) != tuple(size):
        scores = F.interpolate(scores[None], tuple(size), mode="bilinear", align_corners=False)[0]
    return scores.argmax(0)


def hold_out(images: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on, and held-out ones, one at least of each: drawn from `seed`, in rising order."""
    generator = torch.Generator().manual_seed(derive_seed("held-out", seed))
    order = torch.randperm(images, generator=generator).tolist()
    held = min(max(1, round(share * images)), images - 1)
    return sorted(order[held:]), sorted(order[:held])
