"""Crops of a few sizes at a few places (TSN, arXiv:1608.00859), with which VideoMAE pretrains."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.shared_batch import draws_rows

SCALES = (1.0, 0.875, 0.75, 0.66)
"""Sides of a crop, as shares of the image's shorter side. Height and width are equal, or neighbours in this list."""
PLACES = (
    *((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4)),
    *((4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)),
)
"""Distances of a crop from the top and from the left, in quarters of the room that there is."""
_NEAR = 3
"""A side that is less than this from the size of the result becomes that size, px."""


@draws_rows
def multi_scale_boxes(batch: int, height: int, width: int, size: int, generator: torch.Generator | None) -> Tensor:
    """Boxes int64 [batch, 4] on the generator's device: top, left, height, width, px.

    Each pair of lengths is equally probable, and so is each of the 13 places. Quarters of the room are cut off to whole
    px, as in MCG-NJU/VideoMAE@14ef8d85 transforms.py.

    Args:
        size: side of the result, px.
        generator: None: torch's global one, on the CPU.
    """
    lengths = [int(min(height, width) * scale) for scale in SCALES]
    lengths = [min(size, height, width) if abs(side - size) < _NEAR else side for side in lengths]
    near = [(i, j) for i in range(len(lengths)) for j in range(len(lengths)) if abs(i - j) <= 1]
    device = torch.device("cpu") if generator is None else generator.device
    pairs = torch.tensor([(lengths[i], lengths[j]) for i, j in near], device=device)
    places = torch.tensor(PLACES, device=device)
    shape = pairs[_draw(len(pairs), batch, generator, device)].clamp(min=1)
    room = torch.tensor([height, width], device=device) - shape
    corner = room // 4 * places[_draw(len(places), batch, generator, device)]
    return torch.cat((corner, shape), 1)


def _draw(count: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.randint(count, (batch,), generator=generator, device=device)
