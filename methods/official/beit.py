"""BEiT beside its official code, microsoft/unilm@768a3c87 beit/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mimbench.api import Golden, Method, ModelSetup, OfficialCode
from mimbench_methods.official.encoders import relative_vit_options


class OfficialBEiT(OfficialCode):
    """The tokens of the images come with the file, so no tokenizer is needed."""

    methods = ("beit",)
    repository = "beit"
    names: ClassVar = {"lm_head": "head"}
    computed = ("tokenizer.",)

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        """The mask does not matter, since golden vectors bring their own."""
        patches = (config["img_size"] // config["patch_size"]) ** 2
        method = {
            "hidden_patches": max(1, patches * 2 // 5),
            "min_block": 1,
            "kmeans": {"vocabulary": config["vocab_size"]},
        }
        encoder = relative_vit_options(config)
        return ModelSetup("beit", "vit", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        images, mask = golden.images(), golden.mask()
        tokens = golden.tensor("input/token_ids").view(mask.shape)
        prediction = method.predict(images, mask)
        masked = prediction.flatten(0, -2)[mask.flatten()]
        right = (masked.argmax(-1) == tokens[mask]).float().mean()
        return {
            "out/loss": method.loss(prediction, tokens, mask),
            "out/prediction": prediction,
            "out/logits_all": prediction,
            "out/logits": masked,
            "out/mlm_acc": right,
        }
