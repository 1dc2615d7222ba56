"""I-JEPA beside its official code, facebookresearch/ijepa@52c1ae95."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup, MultiBlockMask, OfficialCode, TrainConfig
from mimbench_methods.official.encoders import require, vit_options


class OfficialIJEPA(OfficialCode):
    methods = ("ijepa",)
    repository = "ijepa"
    names: ClassVar = {
        "predictor_embed.": "project.",
        "predictor_pos_embed": None,
        "predictor_blocks.": "blocks.",
        "predictor_norm.": "norm.",
        "predictor_proj.": "head.",
    }
    networks: ClassVar = {
        "param/encoder.": "encoder.",
        "param/predictor.": "predictor.",
        "param/target.": "teacher.module.",
    }
    states: ClassVar = {"ema/target.": "param/target."}
    trajectory_states: ClassVar = {
        "traj/encoder_after.": "param/encoder.",
        "traj/target_after.": "param/target.",
        "traj/predictor_after.": "param/predictor.",
    }
    not_compared: ClassVar = {
        "ema/momentum": "the momentum of the update that is compared",
        "traj/momentum": "the momentum of the steps that are compared",
        "traj/masks_*": "the masks of the steps that are compared",
    }

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        require(config, qkv_bias=True)
        if config.get("nenc", 1) != 1:
            raise InputError(f"mimbench's I-JEPA has one context block per image, not nenc = {config['nenc']}")
        method = {
            "targets": config["npred"],
            "target_scale": config["pred_mask_scale"],
            "target_aspect": config["aspect_ratio"],
            "context_scale": config["enc_mask_scale"],
            "min_context": config["min_keep"] + 1,
            "allow_overlap": config["allow_overlap"],
            "predictor_dim": config["pred_emb_dim"],
            "predictor_depth": config["pred_depth"],
            "predictor_heads": config["pred_num_heads"],
            "predictor_mlp_ratio": config["mlp_ratio"],
        }
        encoder = vit_options(config) | {"position": "sincos", "class_token": False}
        return ModelSetup("ijepa", "vit", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        images, mask = golden.images(), _mask(golden, method, "input/masks_enc", "input/masks_pred")
        model: Any = method
        target, prediction = method.target(images), method.predict(images, mask)
        return {
            "out/loss": method.loss(prediction, target, mask),
            "out/context": method.encoder.forward_tokens(method.encoder.embed(images), mask.context).sequence,
            "out/pred": prediction.transpose(0, 1),  # there, the first block of all images comes first
            "out/target": model.target_blocks(target, mask).transpose(0, 1),
            "out/target_full": target,
        }

    def update(self, golden: Golden, method: Method) -> None:
        teacher: Any = method.teacher
        if "ema/momentum" in golden.arrays:
            teacher.follow(method.encoder, float(golden.tensor("ema/momentum")))

    def training(self, golden: Golden) -> TrainConfig:
        return TrainConfig(epochs=1, batch_size=1, base_lr=1.0)

    def begin(self, golden: Golden, method: Method) -> None:
        teacher: Any = method.teacher
        teacher.follow(method.encoder, 0.0)

    def step_loss(self, golden: Golden, method: Method, step: int) -> Tensor:
        mask = _mask(golden, method, f"traj/masks_enc_{step}", f"traj/masks_pred_{step}")
        return method(golden.images(), mask).loss

    def after_step(self, golden: Golden, method: Method, step: int) -> None:
        teacher: Any = method.teacher
        teacher.follow(method.encoder, float(golden.tensor("traj/momentum")[step]))


def _mask(golden: Golden, method: Method, context: str, targets: str) -> MultiBlockMask:
    """From index lists: the contexts [1, B, K], and the target blocks [M, B, T]."""
    (cells,) = golden.tensor(context)
    return MultiBlockMask(cells, golden.tensor(targets), method.encoder.grid)
