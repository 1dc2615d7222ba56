"""CAE beside its official code, lxtGH/CAE@d7259714."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.api import Golden, Method, ModelSetup, OfficialCode, visible_indices
from mimbench_methods.official.encoders import vit_options


class OfficialCAE(OfficialCode):
    """The tokens of the images come with the file, so no tokenizer is needed."""

    methods = ("cae",)
    repository = "lxtGH/CAE"
    names: ClassVar = {
        "encoder_to_decoder.": "project.0.",
        "encoder_to_decoder_norm.": "project.1.",
        "pretext_neck.regressor_blocks.": "regressor.",
        "pretext_neck.norm.": "regressor_norm.",
        "pretext_neck.decoder_blocks.": "decoder.",
        "pretext_neck.norm2.": "decoder_norm.",
        "pretext_neck.head.": "head.",
    }
    networks: ClassVar = {"param/": "", "param/teacher.": "teacher.module."}
    computed = ("tokenizer.",)
    states: ClassVar = {"after/teacher/": "param/teacher."}
    not_compared: ClassVar = {
        "after/teacher/*.q_bias": "one tensor with the bias of the values here, which the file lacks",
    }

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        """The mask's blocks do not matter, since golden vectors bring their own."""
        patches = (config["img_size"] // config["patch_size"]) ** 2
        counts = meta.get("mask_counts", [patches // 2])
        method = {
            "hidden_patches": counts[0],
            "min_block": 1,
            "kmeans": {"vocabulary": config["vocab_size"]},
            "regressor_depth": config["regressor_depth"],
            "decoder_depth": config["decoder_depth"],
            "decoder_dim": config["decoder_embed_dim"],
            "decoder_heads": config["decoder_num_heads"],
            "decoder_mlp_ratio": config["mlp_ratio"],
            "decoder_layer_scale": config["decoder_init_values"] or None,
            "decoder_drop_path": config["drop_path_rate"],
            "align_weight": config["align_loss_weight"],
            "momentum": config["base_momentum"],
        }
        encoder = vit_options(config) | {"position": "sincos-rows-first", "layer_scale": config["init_values"] or None}
        return ModelSetup("cae", "vit", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        cae: Any = method
        images, mask = golden.images(), golden.mask()
        masked, visible = visible_indices(~mask), visible_indices(mask)
        tokens = golden.tensor("input/token_ids").view(mask.shape)
        latent, target = cae.regress(images, visible, masked), cae.latent_target(images, masked)
        scores = method.predict(images, mask)
        main, align = method.loss(scores, tokens, mask), (latent - target).square().mean()
        positions = cae.positions
        encoded = method.encoder.forward_tokens(method.encoder.embed(images), visible).sequence
        official = golden.arrays.get("out/latent", encoded)
        is_projected = official.shape[-1] != encoded.shape[-1]  # a narrower decoder; the file may hold either
        return {
            "out/loss": main + cae.config.align_weight * align,
            "out/loss_main": main,
            "out/loss_align": align,
            "out/logits": scores[mask],
            "out/latent": cae.project(encoded) if is_projected else encoded,
            "out/latent_pred": latent,
            "aux/latent_target": target,
            "aux/pos_embed_decoder": torch.cat((torch.zeros_like(positions[:1]), positions)).unsqueeze(0),
        }

    def update(self, golden: Golden, method: Method) -> None:
        method.before_update(0.0)
