"""SimMIM beside its official code, microsoft/SimMIM@d3e29bca."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mimbench.api import Golden, Method, ModelSetup, OfficialCode
from mimbench_methods.official.encoders import relative_vit_options, swin_options


class OfficialSimMIM(OfficialCode):
    methods = ("simmim",)
    repository = "SimMIM"

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        is_swin = "depths" in config
        encoder = swin_options(config) if is_swin else relative_vit_options(config)
        method = {"mask_patch_size": meta.get("mask_patch_size", config["patch_size"])}
        return ModelSetup(
            "simmim", "swin" if is_swin else "vit", config["img_size"], config["in_chans"], method, encoder
        )

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        outputs = super().replay(golden, method)
        token: Any = method.mask_token
        latent = method.encoder.encode_masked(golden.images(), golden.mask(), token)
        return outputs | {"out/x_rec": outputs["out/prediction"], "out/z": latent}
