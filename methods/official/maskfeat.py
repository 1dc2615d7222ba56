"""MaskFeat beside its official code.

The golden vectors were computed with facebookresearch/SlowFast@287ec007. Recipe and protocols cite @adc55ca3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mimbench.api import Golden, Method, ModelSetup, OfficialCode
from mimbench_methods.official.encoders import vit_options


class OfficialMaskFeat(OfficialCode):
    methods = ("maskfeat",)
    repository = "SlowFast"
    networks: ClassVar = {"param/": "", "param/pred_head.transforms.0.0.": "encoder.body.norm."}
    names: ClassVar = {"hogs.": None, "pred_head.projections.0.": "head."}
    not_compared: ClassVar = {"aux/hog": "the histograms are compared in aux/target_all, cut into patches"}

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        method = {"bins": config["nbins"], "cell_size": config["cell_size"]}
        encoder = vit_options(config) | {"position": "learned"}
        return ModelSetup("maskfeat", "vit", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        outputs, mask = super().replay(golden, method), golden.mask()
        return outputs | {
            "aux/prediction_hidden": outputs["out/prediction"][mask],
            "aux/target": outputs["aux/target_all"][mask],
        }
