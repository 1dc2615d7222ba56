"""Heads of several candidates on a frozen encoder, as they are trained: the loss is the sum of theirs.

So each head is trained as if it were alone, and every image passes through the encoder once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.contract import (
    DataSizes,
    Encoder,
    InputConfig,
    PartOptions,
    PlannedStep,
    StepOutput,
    TrainConfig,
)
from mimbench.contract.input import image_shape
from mimbench.data import DeviceTransform
from mimbench.seeds import derive_seed, fork_rng
from mimbench.toolkit.head_candidates import Candidate
from mimbench.toolkit.independent_heads import IndependentHeads

Inputs = Mapping[str, Tensor]
"""What heads read, by name: [B, D] or [B, N, D]."""
ReadFunction = Callable[[Encoder, Tensor], Inputs]
"""(encoder, normalised images) -> what the heads read."""
BuildFunction = Callable[[str, int, int], nn.Module]
"""(kind of head, channels that it reads, classes) -> a head with fresh weights, which gives logits [B, classes]."""


class HeadTraining(IndependentHeads):
    """A Trainable that holds the heads of all candidates, and not the frozen encoder."""

    shares_batch = True

    def __init__(
        self,
        inputs_of: Callable[[Tensor, torch.Generator], Inputs],
        candidates: Sequence[Candidate],
        heads: Sequence[nn.Module],
        config: TrainConfig,
    ) -> None:
        """
        Args:
            inputs_of: what the heads read, of images and the generator of a step.
            config: of the task. Its clip_grad limits the gradient of each head by itself.
        """
        super().__init__(heads, config.clip_grad)
        self.inputs_of, self.candidates = inputs_of, tuple(candidates)
        self.base_lr = highest_rate(candidates)

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = (part.to(generator.device, non_blocking=True) for part in batch)
        inputs = self.inputs_of(images, generator)
        losses = torch.stack(
            [
                F.cross_entropy(head(inputs[candidate.reads]).float(), labels)
                for candidate, head in zip(self.candidates, self.heads, strict=True)
            ]
        )
        return StepOutput(self.finite(losses).sum())

    def optimizer_parts(self) -> dict[str, PartOptions]:
        return {
            f"heads.{index}.": PartOptions(one.rate / self.base_lr, one.weight_decay)
            for index, one in enumerate(self.candidates)
        }


def highest_rate(candidates: Sequence[Candidate]) -> float:
    """The base learning rate of the training, of which each candidate has a share."""
    return max(one.rate for one in candidates)


def training_config(config: TrainConfig, candidates: Sequence[Candidate]) -> TrainConfig:
    """The options of the training itself: the highest rate, and no clipping of all gradients together."""
    return config.model_copy(update={"base_lr": highest_rate(candidates), "clip_grad": None})


def build_heads(
    build: BuildFunction, candidates: Sequence[Candidate], dims: Mapping[str, int], classes: int, seed: int
) -> list[nn.Module]:
    """A head per candidate. Its initial weights depend on the seed and its kind only.

    Args:
        dims: channels of each input.
    """
    heads = []
    for candidate in candidates:
        with fork_rng(derive_seed("head", seed, candidate.kind)):
            heads.append(build(candidate.kind, dims[candidate.reads], classes))
    return heads


class _PlannedHeads(HeadTraining):
    """As it is trained, with the encoder inside, so that this is counted too."""

    def __init__(
        self,
        encoder: Encoder,
        transform: DeviceTransform,
        read: ReadFunction,
        candidates: Sequence[Candidate],
        heads: Sequence[nn.Module],
        config: TrainConfig,
    ) -> None:
        super().__init__(self._inputs, candidates, heads, config)
        self.encoder, self.transform, self.read = encoder.requires_grad_(False), transform, read

    def train(self, mode: bool = True) -> _PlannedHeads:
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def _inputs(self, images: Tensor, generator: torch.Generator) -> Inputs:
        return {name: one.float() for name, one in self.read(self.encoder, self.transform(images, generator)).items()}


def planned_heads(
    encoder: Encoder,
    data: DataSizes,
    images: InputConfig,
    config: TrainConfig,
    read: ReadFunction,
    candidates: Sequence[Candidate],
    build: BuildFunction,
) -> PlannedStep:
    """The step of a HeadSweep for `mimbench plan`, on images that the loader has cropped."""
    transform = DeviceTransform(images, encoder.in_channels, train=True, batched=False)
    with torch.no_grad():
        inputs = read(encoder.eval(), torch.zeros(1, *encoder.input_shape))
    dims = {name: tensor.shape[-1] for name, tensor in inputs.items()}
    heads = build_heads(build, candidates, dims, data.classes, seed=0)
    model = _PlannedHeads(encoder, transform, read, candidates, heads, config)
    shape = image_shape(data.channels, images.image_size, images.frames)

    def batch(count: int) -> Any:
        return torch.zeros(count, *shape, dtype=torch.uint8), torch.zeros(count, dtype=torch.long)

    return PlannedStep(model, batch, training_config(config, candidates))
