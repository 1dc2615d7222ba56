"""Linear segmentation: batch normalisation and one linear layer on frozen patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    IGNORED,
    Confusion,
    Dataset,
    DataSizes,
    Encoder,
    InputConfig,
    PlannedStep,
    SemanticSplit,
    TaskConfig,
    TaskContext,
    TaskResult,
    derive_seed,
    load_protocols,
    map_over_ranks,
    train_and_test,
)
from mimbench_tasks.dense.config import FrozenSegmentationConfig, ParallelHeadsConfig
from mimbench_tasks.dense.images import PixelImages, Sample
from mimbench_tasks.dense.maps import FrozenMaps, Scores, slide, upsample
from mimbench_tasks.dense.parallel_heads import (
    ParallelHeads,
    check_heads_training,
    choose_head,
    curve,
    sweep_details,
)
from mimbench_tasks.dense.planned import plan_heads
from mimbench_tasks.dense.segmentation import FrozenSegmentation, Scored, decide, hold_out
from mimbench_tasks.dense.training_data import check_one_size, training_batches


class DenseLinearConfig(ParallelHeadsConfig, FrozenSegmentationConfig):
    """Values come from a protocol."""

    background_weight: float = Field(1.0, gt=0)
    """Of pixels of the first class in the loss."""


class LinearHead(nn.Module):
    """Batch normalisation of each channel and a linear layer for each patch, as DINOv2's BNHead.

    facebookresearch/dinov2@7c503b3e dinov2/eval/segmentation/models/decode_heads/linear_head.py. Maps of several layers
    are resized to the first one's size and concatenated.
    """

    def __init__(self, channels: int, outputs: int, *, batch_norm: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.linear = nn.Conv2d(channels, outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[B, D, h, w] per layer -> [B, outputs, h, w]."""
        return self.linear(self.norm(concatenate(maps)))


def concatenate(maps: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
    """Maps [B, D, h, w], bilinearly resized to `size`, or to the size of the first, as one."""
    size = size or (maps[0].shape[-2], maps[0].shape[-1])
    resized = [
        each if tuple(each.shape[-2:]) == size else F.interpolate(each, size, mode="bilinear", align_corners=False)
        for each in maps
    ]
    return torch.cat(resized, 1) if len(resized) > 1 else resized[0]


def build_head(channels: int, outputs: int, seed: int, *, batch_norm: bool = True) -> LinearHead:
    """A head whose weights are drawn from `seed` (normal, 0.01, as mmsegmentation), with biases of 0."""
    head = LinearHead(channels, outputs, batch_norm=batch_norm)
    generator = torch.Generator().manual_seed(derive_seed("linear head", seed))
    with torch.no_grad():
        head.linear.weight.normal_(0, 0.01, generator=generator)
        head.linear.bias = nn.Parameter(torch.zeros(outputs))
    return head


class DenseLinear(FrozenSegmentation):
    """Semantic segmentation by a linear layer on frozen patch features.

    With several `lr_factors`, as many heads are trained in one pass, and mIoU on held-out training images chooses one.
    """

    name: ClassVar[str] = "dense-linear"
    Config: ClassVar[type[TaskConfig]] = DenseLinearConfig
    protocols = load_protocols("mimbench_tasks", "protocols/dense_linear")
    config: DenseLinearConfig

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        train, _ = train_and_test(dataset)
        fit_on, _ = self._parts(train, 0)
        check_heads_training(self.config.train, self.config.lr_factors, len(fit_on))
        check_one_size(self.config, self._training_images(train, encoder, fit_on, 0))

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep:
        config = self.config

        def build(channels: Sequence[int]) -> list[LinearHead]:
            return [build_head(sum(channels), data.pixel_classes, 0) for _ in config.lr_factors]

        return plan_heads(config, encoder, data, images, build, self._loss, torch.uint8)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Train the heads, choose one, and score it on the test images. Raises InputError for an unreadable image."""
        config, (train, test) = self.config, train_and_test(dataset)
        fit_on, held = self._parts(train, context.seed)
        context.say(f"dense-linear: {len(fit_on):,} training images, {len(config.lr_factors)} learning rates at once")
        maps = FrozenMaps(encoder, config, context.input, context.device)
        channels = sum(maps.dims())
        heads = [build_head(channels, len(train.classes), context.seed) for _ in config.lr_factors]
        images = self._training_images(train, encoder, fit_on, context.seed)
        loader, see = training_batches(maps, images, config.train, context)
        model = ParallelHeads(see, maps.step, heads, config.lr_factors, self._loss)
        report = context.fit(model, loader, config.train, label="dense-linear", images_per_epoch=len(fit_on))
        model.to(context.device).eval()
        held_out = [counts.scores().mean_iou for counts in self._confusions(maps, model.heads, train, held)]
        diverged = model.diverged.tolist()
        best = choose_head(held_out, diverged) if held else 0
        rates = [config.train.lr * factor for factor in config.lr_factors]
        details: dict[str, Any] = {"feature_dim": channels, "lr": rates[best]}
        if held:
            details |= {"held_out_images": len(held), **sweep_details("held_out_mIoU", rates, held_out, diverged)}
        tests = self.evaluation_images(test, encoder)
        remaining = [config.pictures]

        def score(samples: list[Sample]) -> Scored:
            answers = self._answers(maps, samples, model.heads[best : best + 1])[0]
            compared = self.compare(samples, answers, len(test.classes), remaining[0])
            remaining[0] -= len(compared[1])
            return compared

        scored = map_over_ranks(score, tests.evaluation_loader(pin_memory=context.device.type == "cuda"))
        curves = {"loss": report.logs[curve(config.lr_factors[best])]}
        return self.result(scored, encoder, test, context, details, curves, report)

    def _parts(self, train: SemanticSplit, seed: int) -> tuple[list[int], list[int]]:
        """Training images to fit on, and held-out ones."""
        if len(self.config.lr_factors) == 1:
            return list(range(len(train))), []
        return hold_out(len(train), self.config.held_out, seed)

    def _training_images(
        self, train: SemanticSplit, encoder: Encoder, indices: Sequence[int], seed: int
    ) -> PixelImages:
        return PixelImages(
            train,
            train.labels,
            self.config,
            channels=encoder.in_channels,
            unknown=IGNORED,
            indices=indices,
            augmentation=self.config.augmentation,
            seed=seed,
        )

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, its sum divided by all pixels, those of unknown class too, as mmsegmentation takes it."""
        labels = labels.long()
        losses = F.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="none")
        if self.config.background_weight != 1:
            losses = torch.where(labels == 0, self.config.background_weight * losses, losses)
        return losses.mean()

    @torch.no_grad()
    def _answers(self, maps: FrozenMaps, samples: Sequence[Sample], heads: nn.ModuleList) -> list[list[Tensor]]:
        """Classes of each image at the size at which they are compared, per head."""
        config = self.config
        images = torch.stack([sample.image for sample in samples]).to(maps.device)

        def predict(window: Tensor) -> Scores:
            seen, size = maps(window), (window.shape[-2], window.shape[-1])
            return [upsample(head(seen), size, maps.step) for head in heads]

        if config.slide and config.crop_size:
            scores = slide(predict, images, config.crop_size, config.slide)
        else:
            scores = predict(images)
        sizes = [self.masks(sample).shape for sample in samples]
        return [[decide(one, size).cpu() for one, size in zip(head, sizes, strict=True)] for head in scores]

    def _confusions(
        self, maps: FrozenMaps, heads: nn.ModuleList, train: SemanticSplit, held: Sequence[int]
    ) -> list[Confusion]:
        """Counts on the held-out images for each head; [] without such images."""
        if not held:
            return []
        images = self.evaluation_images(train, maps.encoder, held)

        def count(samples: list[Sample]) -> list[Confusion]:
            answers = self._answers(maps, samples, heads)
            return [self.compare(samples, of_head, len(train.classes), 0)[0] for of_head in answers]

        totals = [Confusion(len(train.classes)) for _ in heads]
        for parts in map_over_ranks(count, images.evaluation_loader(pin_memory=maps.device.type == "cuda")):
            for total, part in zip(totals, parts, strict=True):
                total.merge(part)
        return totals
