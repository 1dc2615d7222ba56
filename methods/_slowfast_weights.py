"""Initial weights of MaskFeat: those of facebookresearch/SlowFast@287ec007."""

from __future__ import annotations

import torch
from torch import nn

from mimbench.api import Encoder


@torch.no_grad()
def init_as_slowfast(encoder: Encoder) -> None:
    """Weights of linear layers, convolutions and tokens normal, std 0.02; biases of linear layers and norms 0.02.

    The bias of a convolution is as torch draws it, and that of the final norm is 0: officially this norm is part of the
    head. Files: slowfast/models/video_model_builder.py, head_helper.py.
    """
    norms = [part for part in encoder.modules() if isinstance(part, nn.LayerNorm)]
    for part in encoder.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
            nn.init.constant_(part.bias, 0.0 if part in norms[-1:] else 0.02)
    for name, parameter in encoder.named_parameters():
        if name.endswith("_token"):
            nn.init.trunc_normal_(parameter, std=0.02)
