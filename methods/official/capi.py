"""CAPI beside its official code, facebookresearch/capi@0145b88f model.py. There are no golden vectors."""

from __future__ import annotations

from typing import ClassVar

from mimbench.api import OfficialCode


class OfficialCAPI(OfficialCode):
    names: ClassVar = {"decoder.": "predictor.", "mask_token": "predictor.mask_token"}
