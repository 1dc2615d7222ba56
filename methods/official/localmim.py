"""LocalMIM beside its official code, Haoqing-Wang/LocalMIM@314a6e55 ViT/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup, OfficialCode
from mimbench_methods.official.encoders import vit_options

SCALES = range(4)


class OfficialLocalMIM(OfficialCode):
    methods = ("localmim",)
    repository = "LocalMIM"
    names: ClassVar = {
        **{f"norm.{scale}.": f"norms.{scale}." for scale in SCALES[:-1]},
        "decoder.": "decoders.",
        **{f"decoder.{scale}.pos_embed": None for scale in SCALES},
        **{f"hog_enc.{scale}.conv.": f"hogs.{scale}." for scale in SCALES},
        **{f"hog_enc.{scale}.conv.weight": None for scale in SCALES},
    }

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        depth, layers = config["depth"], config["layers"]
        if layers[-1] != depth - 1:
            raise InputError(f"the last of the predicting layers is the encoder's last here, not one of {layers}")
        method = {
            "mask_ratio": config["mask_ratio"],
            "layers": [*layers[:-1], -1],
            "cells": config["hog_cells"],
            "bins": config["hog_nbins"],
            "random_bias": config["hog_bias"],
            "decoder_dim": config["decoder_embed_dim"],
            "decoder_depth": config["decoder_depth"],
            "decoder_heads": config["decoder_num_heads"],
            "decoder_mlp_ratio": config["mlp_ratio"],
        }
        encoder = vit_options(config) | {"position": "sincos"}
        return ModelSetup("localmim", "vit", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        localmim: Any = method
        images, mask = golden.images(), golden.mask()
        target, prediction = method.target(images), method.predict(images, mask)
        losses = localmim.losses(prediction, target, mask)
        order = golden.tensor("input/noise").argsort(1)
        keep = order[:, : int((~mask[0]).sum())]
        latent = method.encoder.forward_tokens(method.encoder.embed(images), keep).sequence
        outputs = {"out/loss": losses.sum(), "out/loss_parts": losses, "out/latent_3": latent}
        weights = [localmim.weights(mask, cell) for cell in localmim.config.cells]
        sizes = [weight.shape[1] for weight in weights]
        for scale, (predicted, true) in enumerate(zip(prediction.split(sizes, 1), target.split(sizes, 1), strict=True)):
            outputs |= {f"out/pred_{scale}": predicted, f"aux/target_{scale}": true}
            outputs[f"aux/mask_weight_{scale}"] = weights[scale]
        return outputs
