"""Initial weights of ConvNeXt V2 (FCMAE)."""

from __future__ import annotations

from torch import nn

from mimbench.api import Encoder, InputError


def init_encoder(encoder: Encoder) -> None:
    """facebookresearch/ConvNeXt-V2@25538957 models/fcmae.py: only downsampling has the usual 0.02.

    Raises:
        InputError: the encoder has no depthwise convolutions, so that it is no ConvNeXt.
    """
    layers = [module for module in encoder.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if not any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in layers):
        raise InputError('method.init "official" is for ConvNeXt; set it to "encoder" (--set method.init=encoder)')
    for layer in layers:
        is_dense = isinstance(layer, nn.Conv2d) and layer.groups == 1
        init_layer(layer, 0.02 if is_dense and layer is not layers[0] else 1.0)


def init_layer(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    nn.init.trunc_normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
