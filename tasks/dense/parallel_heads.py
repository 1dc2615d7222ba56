"""Several heads on the same frozen maps, trained at the same time with a learning rate each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.api import IndependentHeads, InputError, PartOptions, RunError, StepOutput, TrainConfig
from mimbench_tasks.dense.maps import upsample
from mimbench_tasks.dense.training_data import Seeing

Loss = Callable[[Tensor, Tensor], Tensor]
"""(predictions of a head [B, K, H, W], targets [B, H, W]) -> a mean over the images."""


class ParallelHeads(IndependentHeads):
    """A Trainable. Its loss is the sum of the heads' losses, which share no weight: each head trains as if alone.
    One that diverges is noted in `diverged`, and the others go on.

    The encoder is no submodule, so it is neither trained nor saved.
    """

    shares_batch = True

    def __init__(
        self, see: Seeing, step: int, heads: Sequence[nn.Module], lr_factors: Sequence[float], loss: Loss
    ) -> None:
        """
        Args:
            see: from what the loader yields to maps.
            step: px; images were padded to multiples of it.
            heads: from maps to predictions [B, K, h, w].
            lr_factors: of each head, on the training's learning rate.
            loss: of a head.
        """
        super().__init__(heads)
        self.see, self.step, self.loss, self.lr_factors = see, step, loss, lr_factors

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        """batch: uint8 images [B, C, H, W], or a list of their maps, and targets [B, H, W]."""
        shown, targets = _moved(batch[0], generator.device), _moved(batch[1], generator.device)
        maps = self.see(shown)
        size = (targets.shape[-2], targets.shape[-1])
        losses = self.finite(
            torch.stack([self.loss(upsample(head(maps).float(), size, self.step), targets) for head in self.heads])
        )
        logs = {curve(factor): loss for factor, loss in zip(self.lr_factors, losses.detach(), strict=True)}
        return StepOutput(losses.sum(), logs)

    def optimizer_parts(self) -> dict[str, PartOptions]:
        return {f"heads.{index}.": PartOptions(lr_scale=factor) for index, factor in enumerate(self.lr_factors)}


def _moved(values: Any, device: torch.device) -> Any:
    """A tensor, or a list of them, on the device."""
    if isinstance(values, Tensor):
        return values.to(device, non_blocking=True)
    return [each.to(device, non_blocking=True) for each in values]


def curve(factor: float) -> str:
    """Name of the curve of the head that is trained with this factor. mmengine sums up what has "loss" in its name."""
    return f"head at rate x {factor:g}"


def choose_head(scores: Sequence[float], diverged: Sequence[bool]) -> int:
    """Index of the head with the highest score, of those that have not diverged; of equal ones the first.

    Raises:
        RunError: all have diverged.
    """
    left = [index for index, score in enumerate(scores) if math.isfinite(score) and not diverged[index]]
    if not left:
        raise RunError("all heads diverged in training; lower task.train.base_lr or task.lr_factors")
    return max(left, key=lambda index: scores[index])


def sweep_details(
    name: str, rates: Sequence[float], scores: Sequence[float], diverged: Sequence[bool]
) -> dict[str, Any]:
    """What a record says of the heads by their rates: the scores, under `name`, and which rates diverged."""
    labels = [f"{rate:g}" for rate in rates]
    lost = [is_lost or not math.isfinite(score) for is_lost, score in zip(diverged, scores, strict=True)]
    return {
        name: {label: score for label, score, is_lost in zip(labels, scores, lost, strict=True) if not is_lost},
        "diverged": [label for label, is_lost in zip(labels, lost, strict=True) if is_lost],
    }


def check_heads_training(train: TrainConfig, lr_factors: Sequence[float], images: int) -> None:
    """Raise InputError if the heads cannot be trained as they would be alone, or the images do not fill a batch."""
    train.require_images(images, "task.train")
    if train.layer_decay is not None:
        raise InputError(f"task.train.layer_decay {train.layer_decay:g}: the encoder is frozen; leave it out")
    if len(set(lr_factors)) < len(lr_factors):
        raise InputError(f"task.lr_factors {list(lr_factors)} names one factor twice")
    if len(lr_factors) > 1 and train.clip_grad is not None and not train.clip_each:
        raise InputError(
            "task.train.clip_grad limits the gradient of all heads together: leave it out, set "
            "task.train.clip_each=true, or name one factor in task.lr_factors"
        )
