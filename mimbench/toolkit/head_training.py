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

Inputs = Mapping[str, Tensor]
"""What heads read, by name: [B, D] or [B, N, D]."""
ReadFunction = Callable[[Encoder, Tensor], Inputs]
"""(encoder, normalised images) -> what the heads read."""
BuildFunction = Callable[[str, int, int], nn.Module]
"""(kind of head, channels that it reads, classes) -> a head with fresh weights, which gives logits [B, classes]."""


LARGEST_NORM = 1e8
"""Of the weights of a head that has not diverged."""


class HeadTraining(nn.Module):
    """A Trainable that holds the heads of all candidates, and not the frozen encoder.

    Among several heads, one whose gradient is not finite or whose weights grow without limit counts as diverged. Its
    weights are 0 from then on. So a rate that is too high ends neither the training nor the other heads.

    Attributes:
        diverged: bool [H], by candidate.
    """

    shares_batch = True
    diverged: Tensor

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
        super().__init__()
        self.inputs_of, self.candidates, self.clip_grad = inputs_of, tuple(candidates), config.clip_grad
        self.base_lr = highest_rate(candidates)
        self.heads = nn.ModuleList(heads)
        self.register_buffer("diverged", torch.zeros(len(heads), dtype=torch.bool))
        counts = [len(list(head.parameters())) for head in heads]
        self._head_of = [index for index, count in enumerate(counts) for _ in range(count)]
        """The head of each parameter."""

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = (part.to(generator.device, non_blocking=True) for part in batch)
        inputs = self.inputs_of(images, generator)
        losses = torch.stack(
            [
                F.cross_entropy(head(inputs[candidate.reads]).float(), labels)
                for candidate, head in zip(self.candidates, self.heads, strict=True)
            ]
        )
        return StepOutput((losses.where(losses.isfinite(), 0.0) if len(losses) > 1 else losses).sum())

    def before_update(self, progress: float) -> None:
        gradients = [parameter.grad for parameter in self.heads.parameters() if parameter.grad is not None]
        norms = self._norms(gradients)
        if self.clip_grad is not None:
            scales = (self.clip_grad / (norms + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, [scales[index] for index in self._head_of])
        self._drop(~norms.isfinite(), gradients)

    def after_step(self, progress: float) -> None:
        weights = [parameter.detach() for parameter in self.heads.parameters()]
        self._drop(~(self._norms(weights) < LARGEST_NORM), weights)

    def optimizer_parts(self) -> dict[str, PartOptions]:
        return {
            f"heads.{index}.": PartOptions(one.rate / self.base_lr, one.weight_decay)
            for index, one in enumerate(self.candidates)
        }

    def _norms(self, tensors: list[Tensor]) -> Tensor:
        """Norm over all tensors of each head, [H]; one tensor per parameter."""
        norms = torch.stack(torch._foreach_norm(tensors)).float()
        index = torch.tensor(self._head_of, device=norms.device)
        return norms.new_zeros(len(self.heads)).index_add_(0, index, norms.square()).sqrt()

    def _drop(self, is_broken: Tensor, tensors: list[Tensor]) -> None:
        """Note which heads have diverged, and set their tensors to 0, without a look at values, which makes GPUs wait.

        A head alone is left as it is: the engine then stops the training, and says what to change.
        """
        if len(self.heads) > 1:
            self.diverged |= is_broken
            for index, tensor in zip(self._head_of, tensors, strict=True):
                tensor.masked_fill_(self.diverged[index], 0.0)


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
