"""Pixio beside its official code, facebookresearch/pixio@14de94cb pretraining/. There are no golden vectors of it."""

from __future__ import annotations

from typing import ClassVar

from mimbench.api import OfficialCode
from mimbench_methods.official.mae import DECODER


class OfficialPixio(OfficialCode):
    names: ClassVar = {**DECODER, "decoder_pos_embed": "positions"}
