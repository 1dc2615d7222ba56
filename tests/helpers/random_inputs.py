"""Random images, generators and weights that are equal in each run."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mimbench.contract import Method


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 3, side: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=seeded())


def shake(module: torch.nn.Module) -> None:
    """Move every trained weight, also those of norms and biases."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=seeded(1))


def losses_on_one_batch(method: Method, side: int, steps: int = 40) -> list[float]:
    """Losses while AdamW trains `method` on four smooth images with one mask."""
    method.train()
    batch = F.interpolate(torch.randn(4, 3, 5, 5, generator=seeded()), side, mode="bicubic")
    mask = method.sample_mask(4, seeded())
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = method(batch, mask).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
