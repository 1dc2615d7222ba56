"""A few optimizer steps of a method on one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.contract import Method


def losses_on(method: Method, images: Tensor, mask: Tensor, steps: int) -> list[float]:
    """The loss of each step of AdamW on the same images under the same mask."""
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = method(images, mask).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
