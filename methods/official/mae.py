"""MAE beside its official code, facebookresearch/mae@efb2a806."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mimbench.api import Golden, Method, ModelSetup, OfficialCode
from mimbench_methods.official.encoders import vit_options

DECODER: Mapping[str, str | None] = {
    "decoder_embed": "project",
    "decoder_pos_embed": None,
    "decoder_blocks": "blocks",
    "decoder_norm": "norm",
    "decoder_pred": "head",
}
"""Names of a pixel decoder, in MAE's code and those that follow it."""


class OfficialMAE(OfficialCode):
    methods = ("mae",)
    repository = "mae"
    names = DECODER

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        method = {
            "mask_ratio": config["mask_ratio"],
            "norm_pixels": config["norm_pix_loss"],
            "decoder_dim": config["decoder_embed_dim"],
            "decoder_depth": config["decoder_depth"],
            "decoder_heads": config["decoder_num_heads"],
            "decoder_mlp_ratio": config["mlp_ratio"],
        }
        encoder = vit_options(config) | {"position": "sincos"}
        return ModelSetup("mae", "vit", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        outputs = super().replay(golden, method)
        outputs |= {"out/pred": outputs["out/prediction"], "aux/target": outputs["aux/target_all"]}
        if "input/ids_keep" in golden.arrays:
            tokens = method.encoder.embed(golden.images())
            features = method.encoder.forward_tokens(tokens, golden.tensor("input/ids_keep"))
            outputs["out/latent"] = features.sequence
        return outputs
