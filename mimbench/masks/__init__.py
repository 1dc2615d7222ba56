"""Masks: bool [B, Gh, Gw], True = masked, on any grid whose square cells tile the image.

A cell is a mask patch, a patch of the encoder, or a pixel. Every generator of masks draws from a torch.Generator and
returns its masks on that generator's device. What this package exports is public, and part of `mimbench.api`.
"""

from mimbench.masks.blocks import block_mask
from mimbench.masks.cuboids import cuboid_mask
from mimbench.masks.grids import (
    Grid,
    mask_at_pixels,
    mask_grid,
    mean_over_masked,
    repeat_per_mask,
    replace_masked,
    resize_mask,
    visible_indices,
)
from mimbench.masks.inverse_block import inverse_block_mask
from mimbench.masks.mixed import mixed_ratio_mask
from mimbench.masks.multi_block import MultiBlockMask, multi_block_mask
from mimbench.masks.noise import noise_mask
from mimbench.masks.patches import patchify, unpatchify
from mimbench.masks.sampling import (
    grid_mask,
    guided_mask,
    masked_count,
    random_mask,
    random_order,
    square_mask,
    tube_mask,
)
from mimbench.masks.stored_noise import stored_noise_mask
from mimbench.masks.uniform import uniform_mask
from mimbench.masks.visible_blocks import visible_blocks_mask

__all__ = [
    "Grid",
    "MultiBlockMask",
    "block_mask",
    "cuboid_mask",
    "grid_mask",
    "guided_mask",
    "inverse_block_mask",
    "mask_at_pixels",
    "mask_grid",
    "masked_count",
    "mean_over_masked",
    "mixed_ratio_mask",
    "multi_block_mask",
    "noise_mask",
    "patchify",
    "random_mask",
    "random_order",
    "repeat_per_mask",
    "replace_masked",
    "resize_mask",
    "square_mask",
    "stored_noise_mask",
    "tube_mask",
    "uniform_mask",
    "unpatchify",
    "visible_blocks_mask",
    "visible_indices",
]
