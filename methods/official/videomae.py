"""VideoMAE beside its official code, MCG-NJU/VideoMAE@14ef8d85."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup, OfficialCode, visible_indices
from mimbench_methods.official.encoders import require, vit_options


class OfficialVideoMAE(OfficialCode):
    methods = ("videomae",)
    repository = "VideoMAE"
    names: ClassVar = {
        "encoder_to_decoder": "project",
        "decoder.blocks": "blocks",
        "decoder.norm": "norm",
        "decoder.head": "head",
    }

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        require(config, qkv_bias=True, q_and_v_bias_only=True, cls_token=False)
        if config["init_values"]:
            raise InputError("the official decoder has LayerScale too, and this one has none")
        method = {
            "mask_ratio": config["mask_ratio"],
            "norm_pixels": config["normlize_target"],
            "decoder_dim": config["decoder_embed_dim"],
            "decoder_depth": config["decoder_depth"],
            "decoder_heads": config["decoder_num_heads"],
            "decoder_mlp_ratio": config["mlp_ratio"],
        }
        encoder = vit_options(config) | {"tubelet": config["tubelet_size"]}
        size, channels = config["img_size"], config["in_chans"]
        return ModelSetup("videomae", "video-vit", size, channels, method, encoder, config["num_frames"])

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        videomae: Any = method
        clips, mask = golden.tensor("input/video"), golden.tensor("input/mask").bool()
        with torch.no_grad():
            target = method.target(clips)
            raw = videomae.cubes(clips).flatten(-2)
        prediction = method.predict(clips, mask)
        features = method.encoder.forward_tokens(method.encoder.embed(clips), visible_indices(mask))
        shape = (len(clips), -1, target.shape[-1])
        return {
            "out/loss": method.loss(prediction, target, mask),
            "out/pred": prediction[mask].view(shape),
            "out/latent": features.patches,
            "aux/target": target[mask].view(shape),
            "aux/loss_rawpix": method.loss(prediction, raw, mask),
            "aux/pos_embed_encoder": videomae.encoder.body.sinusoid,
            "aux/pos_embed_decoder": videomae.positions,
        }
