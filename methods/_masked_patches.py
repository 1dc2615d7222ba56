"""Numbers of masked patches at another image size, for methods that mask a fixed number of patches."""

from __future__ import annotations

from math import prod

from mimbench.api import Method


def count_masked(method: Method, patches: int) -> int:
    """Number of masked patches at the current image size of the method: the same share as `patches` of encoder.grid."""
    return max(1, round(patches * prod(method.patch_grid) / prod(method.encoder.grid)))
