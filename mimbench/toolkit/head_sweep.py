"""A sweep of heads on a frozen encoder: trained together, compared on held-out images, scored on test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mimbench.contract import Encoder, FitReport, ImageSplit, InputConfig, TaskContext, TrainConfig
from mimbench.contract.input import image_shape
from mimbench.data import DeviceTransform, training_loader
from mimbench.data.pipeline.augment import Erasing, ImageAugment
from mimbench.data.pipeline.normalised import normalised_batches
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.ranks import map_over_ranks
from mimbench.toolkit.head_candidates import Candidate, Choice
from mimbench.toolkit.head_training import (
    BuildFunction,
    HeadTraining,
    Inputs,
    ReadFunction,
    build_heads,
    training_config,
)

EVALUATION_BATCH = 256
"""Images that are scored at once; as many on one process as on several."""
Result = TypeVar("Result")
ObserveFunction = Callable[[nn.Module, Tensor], Mapping[str, Tensor]]
"""(head, what it reads) -> numbers per image by name, [B] each, whose means over the images are reported."""


@dataclass(frozen=True)
class HeadScores:
    """Scores of the chosen heads on a split."""

    logits: np.ndarray
    """Of the best head, float32 [N, classes]."""
    top1: Mapping[str, float]
    """Accuracy in percent by kind."""
    observed: Mapping[str, Mapping[str, float]]
    """Mean over the images of what was observed, by kind and name; empty without an ObserveFunction."""


class HeadSweep:
    """Candidates on one encoder: `train` them, compare them by `accuracies`, and `score` the chosen ones."""

    def __init__(
        self,
        encoder: Encoder,
        context: TaskContext,
        read: ReadFunction,
        candidates: Sequence[Candidate],
        build: BuildFunction,
        classes: int,
    ) -> None:
        self.encoder, self.context, self.read, self.candidates = encoder, context, read, tuple(candidates)
        encoder.to(context.device).eval()
        shape = image_shape(encoder.in_channels, context.input.image_size, context.input.frames)
        with torch.no_grad():
            inputs = read(encoder, torch.zeros(1, *shape, device=context.device))
        dims = {name: tensor.shape[-1] for name, tensor in inputs.items()}
        self.heads = build_heads(build, self.candidates, dims, classes, context.seed)
        self._diverged = [False] * len(self.heads)

    def train(
        self,
        split: ImageSplit,
        config: TrainConfig,
        input_config: InputConfig,
        *,
        label: str,
        auto_augment: str | None = None,
        erase_prob: float = 0.0,
    ) -> FitReport:
        """Train all heads. Afterwards they are in evaluation mode.

        Args:
            config: of the task; `base_lr` is not used, since candidates have rates of their own.
            input_config: how the images are cropped and flipped.
            label: names the training in messages.
            auto_augment: AutoAugment or RandAugment in timm's notation; images are then augmented one by one.
            erase_prob: probability that a rectangle of an image is erased with noise.
        """
        device, world = self.context.device, get_world_size()
        augment = ImageAugment(input_config, split[0][0].shape[0], auto_augment) if auto_augment else None
        is_whole = split.is_in_memory and augment is None
        transform = DeviceTransform(input_config, self.encoder.in_channels, train=True, batched=is_whole).to(device)
        erase = Erasing(erase_prob) if erase_prob else None

        @torch.no_grad()
        def inputs_of(images: Tensor, generator: torch.Generator) -> Inputs:
            shown = transform(images, generator)
            if erase is not None:
                shown = erase(shown.contiguous(), generator.initial_seed() + 1)
            return self._read(shown)

        loader = training_loader(
            split,
            input_config,
            batch_size=config.micro_batch(world),
            seed=self.context.seed,
            workers=config.workers,
            device=device,
            rank=get_rank(),
            world_size=world,
            augment=augment,
        )
        model = HeadTraining(inputs_of, self.candidates, self.heads, config)
        used = training_config(config, self.candidates)
        report = self.context.fit(model, loader, used, label=label, images_per_epoch=len(split))
        for head in self.heads:
            head.to(device).eval()
        self._diverged = model.diverged.tolist()
        return report

    def accuracies(self, split: ImageSplit, workers: int) -> dict[Candidate, float]:
        """Top-1 accuracy in percent, without augmentation, of each candidate that has not diverged."""

        @torch.inference_mode()
        def compare(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            images, labels = batch
            inputs = self._read(images)
            logits = [head(inputs[one.reads]) for one, head in zip(self.candidates, self.heads, strict=True)]
            hits = torch.stack([(one.argmax(1).cpu() == labels).sum() for one in logits])
            return hits, torch.stack([one.isfinite().all() for one in logits]).cpu()

        hits, finite = zip(*self._over(compare, split, workers), strict=True)
        total, is_finite = torch.stack(hits).sum(0).tolist(), torch.stack(finite).all(0).tolist()
        return {
            one: 100 * count / len(split)
            for one, count, is_sound, is_lost in zip(self.candidates, total, is_finite, self._diverged, strict=True)
            if is_sound and not is_lost
        }

    def score(
        self, split: ImageSplit, choice: Choice, workers: int, observe: ObserveFunction | None = None
    ) -> HeadScores:
        """Scores of the chosen head of each kind, without augmentation."""
        heads = {kind: self.heads[self.candidates.index(one)] for kind, one in choice.by_kind.items()}

        @torch.inference_mode()
        def score(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, int], dict[str, dict[str, float]]]:
            images, labels = batch
            inputs, hits, observed = self._read(images), {}, {}
            for kind, head in heads.items():
                tokens = inputs[choice.by_kind[kind].reads]
                logits = head(tokens).cpu()
                hits[kind] = int((logits.numpy().argmax(1) == labels.numpy()).sum())
                if kind == choice.best:
                    best = logits
                if observe is not None:
                    observed[kind] = {name: float(one.double().sum()) for name, one in observe(head, tokens).items()}
            return best, hits, observed

        logits, hits, observed = zip(*self._over(score, split, workers), strict=True)
        seen = [kind for kind in heads if observed[0].get(kind)]
        return HeadScores(
            torch.cat(logits).numpy(),
            {kind: 100 * sum(one[kind] for one in hits) / len(split) for kind in heads},
            {
                kind: {name: sum(one[kind][name] for one in observed) / len(split) for name in observed[0][kind]}
                for kind in seen
            },
        )

    def parameters(self) -> dict[str, int]:
        """Number of trained parameters of one head, by kind."""
        return {
            one.kind: sum(parameter.numel() for parameter in head.parameters())
            for one, head in zip(self.candidates, self.heads, strict=True)
        }

    def _over(
        self, function: Callable[[tuple[Tensor, Tensor]], Result], split: ImageSplit, workers: int
    ) -> list[Result]:
        """`function` of every batch of (normalised images, labels), which processes share."""
        batches = normalised_batches(
            split,
            self.context.input,
            self.encoder.in_channels,
            batch_size=EVALUATION_BATCH,
            workers=workers,
            device=self.context.device,
            rank=get_rank(),
            world_size=get_world_size(),
        )
        return map_over_ranks(function, batches)

    def _read(self, images: Tensor) -> Inputs:
        return {name: tensor.float() for name, tensor in self.read(self.encoder, images).items()}
