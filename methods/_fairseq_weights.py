"""Initial weights of data2vec 2.0: those of facebookresearch/fairseq@3d262bb."""

from __future__ import annotations

import torch
from torch import nn

from mimbench.api import Encoder


@torch.no_grad()
def init_as_fairseq(encoder: Encoder) -> None:
    """Linear layers normal, std 0.02; the class token normal, std 1; the patch embedding Xavier, as a linear layer."""
    for part in encoder.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight.view(len(part.weight), -1))
    for name, parameter in encoder.named_parameters():
        if name.endswith("cls_token"):
            nn.init.normal_(parameter)
