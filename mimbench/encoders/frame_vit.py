"""A ViT for images that is applied to each frame of a clip: the control that sees no motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from mimbench.contract import Features, InputError
from mimbench.encoders.vit import ViT
from mimbench.encoders.vit_config import ViTConfig


class FrameViT(ViT):
    """A ViT that encodes each frame of a clip on its own. A clip's features are the mean over its frames.

    No token sees another frame, and frames have no positions, so that the order of frames changes no pooled feature.
    Parameters have the names and shapes of `vit`, whose weights `pretrain.start` takes.
    """

    kind: ClassVar[str] = "frame-vit"
    can: frozenset[str] = frozenset(
        {
            *("clips", "mask-tokens", "separate-patches", "one-grid", "class-token"),
            *("drop-path", "grad-checkpointing"),
        }
    )

    def __init__(self, config: ViTConfig, *, image_size: int, in_channels: int, frames: int = 1) -> None:
        if frames == 1:
            raise InputError(
                "a frame-vit encoder takes clips; set input.frames to the frames of the data's clips, or encoder.name "
                "to vit"
            )
        super().__init__(config, image_size=image_size, in_channels=in_channels)  # tables are those of one frame
        self.frames = frames

    def embed(self, images: Tensor) -> Tensor:
        """One token per patch of each frame: [B, C, T, H, W] -> [B, T, h, w, embed_dim]."""
        each = super().embed(images.transpose(1, 2).flatten(0, 1))
        return each.unflatten(0, (len(images), -1))

    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        self.check_keep(keep)
        batch = len(tokens)
        each = super().forward_layers(tokens.flatten(0, 1), layers, final_norm=final_norm)
        return [_of_clips(features, batch) for features in each]


def _of_clips(each: Features, batch: int) -> Features:
    """Features of B * T frames as those of B clips; class tokens are averaged over the frames of a clip."""
    pooled, dense, prefix = (part.unflatten(0, (batch, -1)) for part in (each.pooled, each.dense, each.prefix))
    return Features(pooled.mean(1), dense.transpose(1, 2), prefix.mean(1), each.class_tokens)
