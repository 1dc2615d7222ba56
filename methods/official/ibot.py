"""iBOT beside its official code, bytedance/ibot@da316d82."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup
from mimbench_methods.official.encoders import require, vit_options
from mimbench_methods.official.ibot_steps import IBOTSteps, follow


class OfficialIBOT(IBOTSteps):
    methods = ("ibot",)
    repository = "ibot"
    names: ClassVar = {
        "masked_embed": "mask_token",
        "last_layer.weight_g": "last.gain",
        "last_layer.weight_v": "last.weight",
        "last_layer2.": None,
    }
    networks: ClassVar = {
        "param/student.backbone.": "encoder.",
        "param/student.head.": "head.",
        "param/teacher.backbone.": "teacher.module.",
        "param/teacher.head.": "teacher_head.module.",
    }
    trained = "student."
    states: ClassVar = {"ema/teacher.": "param/teacher."}
    tolerances: ClassVar = {
        # Errors of single precision are larger here, since the teacher's logits are divided by 0.04 to 0.07.
        "loss (fp32)": 1e-6,
        "output loss_cls": 1e-6,
        "output loss_patch": 1e-6,
    }
    not_compared: ClassVar = {
        **IBOTSteps.not_compared,
        "clip/*": "clipped gradients are compared through the steps of traj/, which clip them",
        "ema/momentum": "the momentum of the update that is compared",
    }

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        require(config, qkv_bias=True, shared_head=True)
        if config["n_global"] != 2 or config.get("head_act", "gelu") != "gelu":
            raise InputError("mimbench's iBOT has two global views, and GELU in its head")
        ratios, spread = _listed(config["pred_ratio"]), _listed(config["pred_ratio_var"])
        method = {
            "local_crops": config["n_local"],
            "local_size": config["local_size"],
            "mask": {"block": "block", "rand": "random"}[config["pred_shape"]],
            "mask_ratios": ratios,
            "ratio_spread": spread,
            "out_dim": config["out_dim"],
            "hidden_dim": config["head_hidden"],
            "bottleneck_dim": config["head_bottleneck"],
            "head_layers": config["head_layers"],
            "fixed_gain": config["norm_last_layer"],
            "student_temperature": config["student_temp"],
            "temperature": (config["warmup_teacher_temp"], config["teacher_temp"]),
            "patch_temperature": (config["warmup_teacher_patch_temp"], config["teacher_patch_temp"]),
            "temperature_epochs": config["warmup_teacher_temp_epochs"],
            "class_weight": config["lambda1"],
            "patch_weight": config["lambda2"],
            "centre_momentum": config["center_momentum"],
        }
        encoder = vit_options(config) | {"position": "learned", "position_resize": "dino"}
        return ModelSetup("ibot", "vit", config["img_size"], config.get("in_chans", 3), method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        model: Any = method
        views, mask = golden.tensor("input/global_crops"), golden.tensor("input/masks").bool().flatten(0, 1)
        crops = golden.tensor("input/local_crops") if model.config.local_crops else views[:0]
        model.centre.copy_(golden.tensor("input/center").flatten())
        model.patch_centre.copy_(golden.tensor("input/center2").flatten())
        model._epoch = int(golden.tensor("input/epoch"))
        images, start = views.flatten(0, 1), method.encoder.num_prefix_tokens
        prediction, target = model.predict(images, mask), model.target(images)
        output = model.compare(tuple(views), tuple(crops), mask)
        outputs = {
            "out/loss": output.loss,
            "out/loss_cls": model.config.class_weight * output.logs["class"],
            "out/loss_patch": model.config.patch_weight * output.logs["patches"],
            "out/student_tokens": model.student_tokens(images, mask),
            "out/student_cls": prediction[:, 0],
            "out/student_patch": prediction[:, start:],
            "out/teacher_tokens": model.teacher.module.features(images).sequence,
            "out/teacher_cls": target[:, 0],
            "out/teacher_patch": target[:, start:],
            "out/center_after": model.centre,
            "out/center2_after": model.patch_centre,
        }
        if len(crops):
            outputs["out/student_local_cls"] = model.local_logits(crops.flatten(0, 1))
        return outputs

    def update(self, golden: Golden, method: Method) -> None:
        if "ema/momentum" in golden.arrays:
            follow(method, float(golden.tensor("ema/momentum")))


def _listed(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list) else (value,)
