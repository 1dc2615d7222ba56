"""Values that change during a training: momentum, temperature, weight decay."""

from __future__ import annotations

import math
from typing import Literal

from mimbench.errors import InputError


def ramp(
    progress: float,
    start: float,
    end: float,
    kind: Literal["linear", "cosine", "step"] = "linear",
    *,
    warmup: float = 1.0,
) -> float:
    """A value that goes from `start` to `end` and then stays.

    Args:
        progress: fraction of the training that is done, in [0, 1].
        start: the value at progress 0.
        end: the value from progress `warmup` on.
        kind: "linear": in a straight line. "cosine": along half a cosine, slow at both ends, as the weight decay and
            momentum of DINO. "step": `start` until `warmup`, then `end`.
        warmup: progress at which `end` is reached, in [0, 1]; 0: `end` from the first step on.

    Raises:
        InputError: `progress` or `warmup` is outside of [0, 1], or `kind` is unknown.
    """
    for name, value in (("progress", progress), ("warmup", warmup)):
        if not 0 <= value <= 1:
            raise InputError(f"ramp: {name} must lie in [0, 1], not {value:g}")
    if kind not in ("linear", "cosine", "step"):
        raise InputError(f'ramp: kind must be "linear", "cosine" or "step", not {kind!r}')
    if progress >= warmup:
        return end
    if kind == "step":
        return start
    if kind == "linear":
        return start + (end - start) * progress / warmup
    return end + (start - end) * (1 + math.cos(math.pi * progress / warmup)) / 2
