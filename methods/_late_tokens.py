"""Mask tokens that join in the encoder's last blocks, as options of methods with mask tokens.

MAE encodes visible patches alone, and its decoder's blocks see the mask tokens. Here the encoder's own last blocks do,
so that a linear head is enough. This is an ablation of mimbench: no paper has it in this form.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from torch import Tensor

from mimbench.api import Config, Encoder, Method, added, count_visible, require_abilities, resize_mask, visible_indices
from mimbench_methods._chosen_layers import require_layers


class LateTokensConfig(Config):
    """Which blocks see mask tokens."""

    encode: Literal["all", "visible"] = added("all")
    """all: each block sees masked patches as mask tokens; visible: only the last `late_blocks` do, and the other blocks
    see the visible patches alone, which costs less."""
    late_blocks: int = added(1, ge=1)
    """encode "visible": the number of last blocks that see mask tokens."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> LateTokensConfig:
        if self.encode == "all" and self.late_blocks != 1:
            raise ValueError('late_blocks is for encode "visible", not for "all"')
        return self

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise InputError if the encoder cannot do that, or has fewer blocks."""
        if self.encode == "all":
            return
        require_abilities('method.encode "visible"', {"late-tokens"}, encoder)
        require_layers(encoder, "late_blocks", self.late_blocks)

    def count_early(self, method: Method) -> int | None:
        """Patches that the early blocks see of each image; None: each block sees all patches."""
        return None if self.encode == "all" else count_visible(method)

    def encode_masked(
        self, encoder: Encoder, images: Tensor, mask: Tensor, token: Tensor, count: int | None = None
    ) -> Tensor:
        """The encoder's map [B, out_dim, h, w] of images whose masked patches are mask tokens [1, 1, 1, embed_dim].

        count: visible patches of each image, if it is known, so that an accelerator is not synchronised.
        """
        if self.encode == "all":
            return encoder.encode_masked(images, mask, token)
        tokens = encoder.embed(images)
        keep = visible_indices(resize_mask(mask, tuple(tokens.shape[1:3])), count)
        return encoder.encode_late(tokens, keep, token, self.late_blocks)
