"""BEiT v2 beside its official code, microsoft/unilm@768a3c87 beit2/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.api import Golden, Method, ModelSetup, OfficialCode
from mimbench_methods.official.encoders import relative_vit_options
from mimbench_methods.official.vqkd import OfficialVQKD

_TINY = {"embed_dim": 8, "depth": 1, "num_heads": 1, "decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 1}


class OfficialBEiTv2(OfficialCode):
    """The words of the images come with the file, so no tokenizer is needed."""

    methods = ("beitv2",)
    repository = "beit2"
    parts = (OfficialVQKD(),)
    names: ClassVar = {
        "lm_head": "head",
        "cls_pt_layers": "late_blocks",
        "cls_pt_norm": "late_norm",
        "cls_pt_lm_head": "late_head",
    }
    computed = ("tokenizer.",)

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        """The mask does not matter, since golden vectors bring their own."""
        method = {
            "hidden_patches": 1,
            "min_block": 1,
            "early_layers": config["early_layers"],
            "late_blocks": config["head_layers"],
            "shared_head": config["shared_lm_head"],
            "vqkd": {"vocabulary": config["vocab_size"], "teacher": "hog", **_TINY},
        }
        encoder = relative_vit_options(config)
        return ModelSetup("beitv2", "vit", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        beit: Any = method
        mask = golden.mask()
        words = golden.tensor("input/token_ids").view(mask.shape)
        prediction = beit.predict(golden.images(), mask)
        both = prediction.unbind(1)
        losses = beit.losses(prediction, words, mask)
        right = [(scores[mask].argmax(-1) == words[mask]).float().mean() for scores in both]
        return {
            "out/loss": beit.loss(prediction, words, mask),
            "out/loss_1": losses[0],
            "out/loss_2": losses[1],
            "out/logits": both[0][mask],
            "out/logits_cls": both[1][mask],
            "aux/logits_all": both[0],
            "aux/logits_cls_all": both[1],
            "aux/mlm_acc": torch.stack(right),
        }
