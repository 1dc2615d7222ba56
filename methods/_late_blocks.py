"""Blocks after some of an encoder's layers, which only pretraining has (BEiT v2)."""

from __future__ import annotations

import torch
from torch import nn

from mimbench.api import Encoder
from mimbench_methods._beitv2_options import BEiTv2Config


@torch.no_grad()
def late_blocks(encoder: Encoder, config: BEiTv2Config) -> nn.ModuleList:
    """As officially, they start with torch's own initial weights; what they add to the residual is scaled by depth."""
    count, before = config.late_blocks, config.early_layers
    last = max(encoder.num_layers, before + count) - 1
    highest = getattr(encoder.config, "drop_path", 0.0)
    blocks = encoder.further_blocks([highest * (before + index) / max(last, 1) for index in range(count)])
    for layer in blocks.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    for index, block in enumerate(blocks):
        for name, layer in block.named_modules():
            if isinstance(layer, nn.Linear) and name in ("attn.proj", "mlp.fc2"):
                layer.weight /= (2 * (before + index + 1)) ** 0.5
    return blocks
