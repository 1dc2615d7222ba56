"""FCMAE beside its official code, facebookresearch/ConvNeXt-V2@25538957."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.api import Golden, Method, ModelSetup, OfficialCode, TrainConfig
from mimbench_methods.official.encoders import convnext_options, require_stride
from mimbench_methods.official.trajectories import mae_training


class OfficialFCMAE(OfficialCode):
    methods = ("fcmae",)
    repository = "ConvNeXt-V2"
    names: ClassVar = {"proj": "project", "pred": "head"}
    computed = ("encoder.body.norm_pre.",)  # the final norm, which pretraining does not use
    not_compared: ClassVar = {
        "traj/masks": "the masks of the steps, which are used",
        "param_dense/*": "the official conversion of the encoder's weights, which a test compares",
    }

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        options = convnext_options(config)
        require_stride(options["depths"], config["patch_size"])
        method = {
            "mask_ratio": config["mask_ratio"],
            "norm_pixels": config["norm_pix_loss"],
            "decoder_dim": config["decoder_embed_dim"],
            "decoder_depth": config["decoder_depth"],
        }
        return ModelSetup("fcmae", "convnext", config["img_size"], config["in_chans"], method, options)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        images, mask = golden.images(), golden.mask()
        model: Any = method
        with torch.no_grad():
            target = model.target(images)
        latent = model.encode(images, mask)
        prediction = model.decode(latent, mask)
        return {
            "out/loss": model.loss(prediction.permute(0, 2, 3, 1), target, mask),
            "out/pred": prediction,
            "out/latent": latent.masked_fill(mask.unsqueeze(1), 0),
            "aux/target": target,
        }

    def training(self, golden: Golden) -> TrainConfig:
        return mae_training(golden)

    def step_loss(self, golden: Golden, method: Method, step: int) -> Tensor:
        return method(golden.images(), golden.tensor("traj/masks")[step].bool()).loss
