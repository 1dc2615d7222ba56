"""dBOT's official names, of liuxingbin/dbot@e935478a. There are no golden vectors of it."""

from __future__ import annotations

from typing import ClassVar

from mimbench.api import OfficialCode


class OfficialDBOT(OfficialCode):
    names: ClassVar = {
        "mask_token": "decoder.mask_token",
        "decoder_embed.": "decoder.project.",
        "decoder_pos_embed": None,
        "decoder_blocks.": "decoder.blocks.",
        "decoder_norm.": "decoder.norm.",
        "decoder_predp.": "decoder.head.",
    }
