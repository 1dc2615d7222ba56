"""CrossMAE beside its official code, TonyLianLong/CrossMAE@6e1b329c. There are no golden vectors of it."""

from __future__ import annotations

from typing import ClassVar

from mimbench.api import OfficialCode


class OfficialCrossMAE(OfficialCode):
    names: ClassVar = {
        "mask_token": "decoder.mask_token",
        "wfm.linear.": "mix.",
        "dec_norms.": "norms.",
        "decoder_pos_embed": None,
        "decoder_blocks.": "decoder.blocks.",
        "decoder_norm.": "decoder.norm.",
        "decoder_pred.": "decoder.head.",
    }
    computed = ("encoder.body.norm.",)  # the final norm, which pretraining does not use
