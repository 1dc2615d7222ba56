"""data2vec 2.0's official names, of facebookresearch/fairseq@3d262bb. There are no golden vectors of it."""

from __future__ import annotations

from typing import ClassVar

from mimbench.api import OfficialCode

_DEEPEST = 64
"""Convolutions of a decoder whose official names are known; the official decoder has 6."""


class OfficialData2Vec2(OfficialCode):
    names: ClassVar = {f"decoder.blocks.{index}.0.": f"decoder.convs.{index}." for index in range(_DEEPEST)}
