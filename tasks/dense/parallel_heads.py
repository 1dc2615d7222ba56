"""Several heads on the same frozen maps, trained at the same time with a learning rate each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.api import InputError, PartOptions, StepOutput, TrainConfig
from mimbench_tasks.dense.maps import upsample
from mimbench_tasks.dense.training_data import Seeing

Loss = Callable[[Tensor, Tensor], Tensor]
"""(predictions of a head [B, K, H, W], targets [B, H, W]) -> a mean over the images."""


class ParallelHeads(nn.Module):
    """A Trainable. Its loss is the sum of the heads' losses, which share no weight: each head trains as if alone.

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
        super().__init__()
        self.see, self.step, self.loss, self.lr_factors = see, step, loss, lr_factors
        self.heads = nn.ModuleList(heads)

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        """batch: uint8 images [B, C, H, W], or a list of their maps, and targets [B, H, W]."""
        shown, targets = _moved(batch[0], generator.device), _moved(batch[1], generator.device)
        maps = self.see(shown)
        size = (targets.shape[-2], targets.shape[-1])
        losses = [self.loss(upsample(head(maps).float(), size, self.step), targets) for head in self.heads]
        logs = {curve(factor): loss.detach() for factor, loss in zip(self.lr_factors, losses, strict=True)}
        return StepOutput(torch.stack(losses).sum(), logs)

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
