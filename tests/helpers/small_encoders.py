"""A tiny encoder that a method can take, for grey images of 8 px."""

from __future__ import annotations

from mimbench.contract import Encoder, Method
from mimbench.encoders.convnet import ConvNeXt
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT


def encoder_for(method: type[Method]) -> Encoder:
    """A ConvNeXt V2 for a method that convolves visible cells only, else a ViT, or a Swin if a ViT cannot serve."""
    if "sparse-convolution" in method.encoder_needs:
        config = ConvNeXt.Config(patch_size=2, dims=(8,), depths=(1,), grn=True, layer_scale=None)
        return ConvNeXt(config, image_size=8, in_channels=1)
    if method.encoder_needs <= ViT.can:
        return ViT(ViT.Config(patch_size=2, embed_dim=8, depth=1, num_heads=2), image_size=8, in_channels=1)
    swin = Swin.Config(patch_size=1, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window=4)
    return Swin(swin, image_size=8, in_channels=1)
