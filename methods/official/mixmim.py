"""MixMIM beside its official code, Sense-X/MixMIM@2b2f5a9a."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup, OfficialCode, TrainConfig
from mimbench_methods.official.encoders import require
from mimbench_methods.official.mae import DECODER
from mimbench_methods.official.trajectories import mae_training


class OfficialMixMIM(OfficialCode):
    methods = ("mixmim",)
    repository = "MixMIM"
    names = DECODER
    not_compared: ClassVar = {"traj/masks": "an input of the steps"}

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        require(config, qkv_bias=True, patch_norm=True)
        stride = config["patch_size"] * 2 ** (len(config["depths"]) - 1)
        if config["encoder_stride"] != stride:
            raise InputError(f"the decoder predicts cells of {stride} px here, not of {config['encoder_stride']} px")
        if config.get("range_mask_ratio"):
            raise InputError("the mask ratio is fixed here; range_mask_ratio must be 0")
        shared = ("patch_size", "embed_dim", "depths", "num_heads", "mlp_ratio", "norm_eps")
        encoder = {key: config[key] for key in shared} | {
            "window": config["window_size"],
            "drop_path": config.get("drop_path_rate", config.get("drop_path", 0.0)),
            "shift": False,
            "position": "sincos-and-relative",
        }
        method = {
            "mask_ratio": config["mask_ratio"],
            "norm_pixels": config["norm_pix_loss"],
            "decoder_dim": config["decoder_dim"],
            "decoder_depth": config["decoder_depth"],
            "decoder_heads": config["decoder_num_heads"],
            "decoder_mlp_ratio": config["mlp_ratio"],
        }
        return ModelSetup("mixmim", "swin", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        mixing: Any = method
        images, mask = golden.images(), golden.mask(shared=True)
        encoded = mixing.encode(images, mask)
        target = method.target(images)
        return {
            "out/loss": method(images, mask).loss,
            "out/z": encoded,
            "out/x_rec": torch.cat(mixing.decode_both(encoded, mask)),
            "aux/target": target,
        }

    def training(self, golden: Golden) -> TrainConfig:
        return mae_training(golden)

    def step_loss(self, golden: Golden, method: Method, step: int) -> Tensor:
        images = golden.images()
        return method(images, golden.tensor("traj/masks")[step].bool().expand(len(images), -1, -1)).loss
