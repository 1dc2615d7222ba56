"""SparK beside its official code, keyu-tian/SparK@a63e386f pretrain/."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup, OfficialCode, TrainConfig, resize_mask
from mimbench_methods.official.encoders import convnext_options, require_stride, resnet_options

NORMS = {"bn": "batch", "ln": "layer", "": "none"}


class OfficialSparK(OfficialCode):
    methods = ("spark",)
    repository = "SparK"
    names: ClassVar = {
        "dense_decoder.dec": "decoder.blocks",
        "dense_decoder.proj": "decoder.pixels",
        "densify_norms": "norms",
        "densify_projs": "project",
        "mask_tokens": "tokens",
    }
    networks: ClassVar = {"param/": "", "param/sparse_encoder.sp_cnn.": "encoder."}
    computed = ("encoder.body.norm_pre.",)  # the final norm, which pretraining does not use
    states: ClassVar = {"buffer_after/": "param/"}
    not_compared: ClassVar = {
        "traj/active": "the masks of the steps, which are used",
        "traj/grad_norm": "the loss of each step is compared",
        "traj/wd_no_decay_group": "0, as here",
    }

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        encoder = config["encoder"]
        if encoder not in ("resnet", "convnext"):
            raise InputError(f"mimbench has no official weights of SparK's encoder {encoder!r}; resnet and convnext")
        options = resnet_options(config) if encoder == "resnet" else convnext_options(config)
        require_stride(options["depths"], config["downsample"])
        method = {
            "mask_ratio": config["mask_ratio"],
            "decoder_dim": config["dec_width"],
            "norm": NORMS[config["densify_norm"]],
        }
        return ModelSetup("spark", encoder, config["img_size"], 3, method, options)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        images, mask = golden.images(), golden.mask()
        model: Any = method
        with torch.no_grad():
            evaluated = copy.deepcopy(method).eval()(images, mask).loss  # before the running statistics change
            target = model.target(images)
        maps = model.encode(images, mask)
        dense = model.densify(maps, mask)
        image = model.decode(dense)
        visible = [x.masked_fill(resize_mask(mask, x.shape[-2:]).unsqueeze(1), 0) for x in maps]
        return {
            "out/loss": model.loss(model.patches(image), target, mask),
            "out/loss_eval_mode": evaluated,
            "out/rec": image,
            "aux/target": target,
            **{f"out/fea_{index}": x for index, x in enumerate(visible)},
            **{f"out/to_dec_{index}": x for index, x in enumerate(dense)},
        }

    def training(self, golden: Golden) -> TrainConfig:
        run = golden.meta["traj"]
        return TrainConfig(
            epochs=run["epochs"],
            batch_size=run["bs"],
            base_lr=run["base_lr"],
            lr_divisor=256,
            optimizer="lamb",
            betas=(0.9, run["ada"]),
            eps=1e-6,
            weight_decay=run["wd"],
            final_weight_decay=run["wde"],
            clip_grad=5.0,
        )

    def step_loss(self, golden: Golden, method: Method, step: int) -> Tensor:
        return method(golden.images(), ~golden.tensor("traj/active")[step].bool()).loss
