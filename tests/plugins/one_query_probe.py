"""A task that trains: one query attends over the frozen encoder's patches, and a linear layer classifies its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Dataset,
    DeviceTransform,
    Encoder,
    ImageSplit,
    Metric,
    StepOutput,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
    TrainConfig,
    evaluation_loader,
    fork_rng,
    get_rank,
    get_world_size,
    labelled_split,
    majority_accuracy,
    require_classes,
    top_k_accuracy,
    training_loader,
)


class Training(TrainConfig):
    epochs: int | None = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    base_lr: float = Field(1e-2, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class OneQueryProbeConfig(TaskConfig):
    layer: int = -1
    """Depth of the patches; -1 is the last layer, after the final norm."""
    heads: int = Field(4, ge=1)
    train: Training = Training()


class Head(nn.Module):
    """Patches [B, N, D] -> logits [B, classes]."""

    def __init__(self, dim: int, heads: int, classes: int) -> None:
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear = nn.Linear(dim, classes)

    def forward(self, patches: Tensor) -> Tensor:
        patches = self.norm(patches)
        query = self.query.expand(len(patches), -1, -1)
        return self.linear(self.attention(query, patches, patches, need_weights=False)[0][:, 0])


class Probe(nn.Module):
    """What is trained. The frozen encoder is behind the function `patches_of`, and so is neither trained nor saved."""

    def __init__(self, patches_of: Callable[..., Tensor], head: Head) -> None:
        super().__init__()
        self.patches_of, self.head = patches_of, head

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = (part.to(generator.device, non_blocking=True) for part in batch)
        return StepOutput(F.cross_entropy(self.head(self.patches_of(images, generator)).float(), labels))


class OneQueryProbe(Task):
    """Top-1 and top-5 accuracy of an attentive probe (attentive probing, CAE, arXiv:2202.03026)."""

    name = "one-query-probe"
    version = "1"
    metrics = (Metric("top1", "percent", 0.0, 100.0), Metric("top5", "percent", 0.0, 100.0))
    Config = OneQueryProbeConfig
    config: OneQueryProbeConfig

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        require_classes(dataset, self.name)
        encoder.layer_index(self.config.layer)
        self.config.train.require_images(len(labelled_split(dataset, "train")), "task.train")

    def chance(self, dataset: Dataset) -> float:
        return majority_accuracy(dataset)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        config, device = self.config.train, context.device
        size = context.input.image_size
        blank = torch.zeros(1, dataset.channels, size, size, device=device)
        with fork_rng(context.seed):
            head = Head(self.patches(encoder, blank).shape[-1], self.config.heads, len(train.classes))
        loader = training_loader(
            train,
            context.input,
            batch_size=config.micro_batch(get_world_size()),
            seed=context.seed,
            workers=config.workers,
            device=device,
            rank=get_rank(),
            world_size=get_world_size(),
        )
        probe = Probe(self.patches_function(encoder, train, context, train_time=True), head)
        report = context.fit(probe, loader, config, label=self.name, images_per_epoch=len(train))
        scores = self.scores(encoder, head.to(device).eval(), test, context)
        labels = test.labels.numpy()
        metrics = {f"top{k}": top_k_accuracy(labels, scores.numpy(), k) for k in (1, 5)}
        return TaskResult(metrics, curves={"loss": report.loss}, cost=report)

    @torch.no_grad()
    def patches(self, encoder: Encoder, images: Tensor) -> Tensor:
        """[B, C, S, S], normalised -> [B, N, D]."""
        return encoder.features(images, self.config.layer).patches.float()

    def patches_function(
        self, encoder: Encoder, split: ImageSplit, context: TaskContext, *, train_time: bool
    ) -> Callable[..., Tensor]:
        """A function of images from a loader of `split`, and of the generator of the augmentation at training time."""
        transform = DeviceTransform(context.input, encoder.in_channels, train_time, batched=split.is_in_memory)
        transform.to(context.device)
        encoder.to(context.device).eval()
        return lambda images, generator=None: self.patches(encoder, transform(images, generator))

    @torch.inference_mode()
    def scores(self, encoder: Encoder, head: Head, split: ImageSplit, context: TaskContext) -> Tensor:
        """[N, classes], on the CPU, in the order of the split."""
        patches_of = self.patches_function(encoder, split, context, train_time=False)
        options = {"batch_size": 256, "workers": self.config.train.workers, "device": context.device}
        loader = evaluation_loader(split, context.input, **options)
        return torch.cat([head(patches_of(images.to(context.device))).cpu() for images, _ in loader])
