"""GreenMIM beside its official code, LayneH/GreenMIM@b9810122."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup, OfficialCode, TrainConfig
from mimbench_methods.official.encoders import swin_options
from mimbench_methods.official.mae import DECODER
from mimbench_methods.official.trajectories import mae_training


class OfficialGreenMIM(OfficialCode):
    """Its decoder puts visible tokens into other cells than their own; the group `fixed/` has them in their own."""

    methods = ("greenmim",)
    repository = "GreenMIM"
    names = DECODER
    variants: ClassVar = {"fixed/": {"decoder": "corrected"}}
    not_compared: ClassVar = {"traj/masks": "an input of the steps", "traj/ids_restore": "an input of the steps"}

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        encoder = swin_options(config) | {"norm_eps": config["norm_eps"]}
        stride = config["patch_size"] * 2 ** (len(config["depths"]) - 1)
        if config["final_patch"] != stride:
            raise InputError(f"the decoder predicts cells of {stride} px here, not of {config['final_patch']} px")
        method = {
            "mask_ratio": config["mask_ratio"],
            "norm_pixels": config["norm_pix_loss"],
            "decoder_dim": config["decoder_embed_dim"],
            "decoder_depth": config["decoder_depth"],
            "decoder_heads": config["decoder_num_heads"],
            "decoder_mlp_ratio": config["mlp_ratio"],
            "decoder": "official",
        }
        return ModelSetup("greenmim", "swin", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        green: Any = method
        images, places = golden.images(), golden.tensor("input/ids_restore")
        mask = golden.mask(shared=True)
        if green.config.decoder == "official":
            mask = places.unflatten(0, green.grid).expand(len(images), -1, -1)
        target, prediction = method.target(images), method.predict(images, mask)
        return {
            "out/loss": method.loss(prediction, target, mask),
            "out/pred": prediction,
            "out/latent": green.encode(images, mask),
            "out/ids_restore": green.places(mask)[0],
            "aux/target": target,
        }

    def training(self, golden: Golden) -> TrainConfig:
        return mae_training(golden)

    def step_loss(self, golden: Golden, method: Method, step: int) -> Tensor:
        green: Any = method
        places = golden.tensor("traj/ids_restore")[step].unflatten(0, green.grid)
        images = golden.images()
        return method(images, places.expand(len(images), -1, -1)).loss
