"""data2vec beside its official code.

The golden vectors were computed with facebookresearch/data2vec_vision@af9a3634 beit/. Recipe and protocols cite
@6146726a.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup, OfficialCode
from mimbench_methods.official.encoders import relative_vit_options


class OfficialData2Vec(OfficialCode):
    methods = ("data2vec",)
    repository = "data2vec_vision"
    names: ClassVar = {"lm_head": "head"}
    networks: ClassVar = {"param/": "", "teacher/": "teacher.module."}
    states: ClassVar = {"after/teacher/": "teacher/"}
    followed: ClassVar = {"after/student/": "param/"}
    not_compared: ClassVar = {
        "after/teacher/mask_token": "the teacher sees no masked patches",
        "after/teacher/lm_head.*": "the teacher has no head here",
    }

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        depth, layers = config["depth"], list(config["target_layers"])
        if layers != list(range(depth - len(layers), depth)):
            raise InputError(f"the targets are of the last layers here, not of the layers {layers}")
        method = {
            "hidden_patches": 1,
            "min_block": 1,
            "target_layers": len(layers),
            "norm_layers": config["target_layer_norm_last"],
            "norm_target": config["post_target_layer_norm"],
            "beta": config["l1_beta"],
        }
        encoder = relative_vit_options(config)
        return ModelSetup("data2vec", "vit", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        outputs, mask = super().replay(golden, method), golden.mask()
        teacher: Any = method.teacher
        with torch.no_grad():
            last = teacher.module.layers(golden.images(), final_norm=False)[-1].dense
        return outputs | {
            "aux/prediction_hidden": outputs["out/prediction"][mask],
            "aux/target": outputs["aux/target_all"][mask],
            "aux/teacher_last_layer": last.flatten(2).transpose(1, 2),
        }

    def update(self, golden: Golden, method: Method) -> None:
        teacher: Any = method.teacher
        teacher.follow(method.encoder, golden.meta["step"]["decay_used"])
