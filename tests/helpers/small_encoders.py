"""A tiny encoder that a method can take: 8 x 8 px in patches of 2 px."""

from __future__ import annotations

from mimbench.contract import Encoder, Method
from mimbench.encoders.convnet import ConvNeXt
from mimbench.encoders.vit import ViT


def encoder_for(method: type[Method]) -> Encoder:
    """A ConvNeXt V2 for a method that convolves visible cells only, else a ViT."""
    if "sparse-convolution" in method.encoder_needs:
        config = ConvNeXt.Config(patch_size=2, dims=(8,), depths=(1,), grn=True, layer_scale=None)
        return ConvNeXt(config, image_size=8, in_channels=1)
    return ViT(ViT.Config(patch_size=2, embed_dim=8, depth=1, num_heads=2), image_size=8, in_channels=1)
