"""VQ-KD, the tokenizer of BEiT v2, beside its official code, microsoft/unilm@768a3c87 beit2/."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup, OfficialCode
from mimbench_methods.official.encoders import require
from mimbench_methods.tokenizers.quantizer import kmeans_on_sphere
from mimbench_methods.tokenizers.vqkd_config import VQKDConfig
from mimbench_methods.tokenizers.vqkd_network import VQKD
from mimbench_methods.tokenizers.vqkd_weights import OFFICIAL_NAMES


class OfficialVQKD(OfficialCode):
    """Files of the tokenizer alone. The method is built around the smallest encoder, and only its tokenizer runs."""

    methods = ("beitv2-vqkd",)
    names: ClassVar = {
        "decoder.": "decoder.body.",
        "decode_task_layer.": "to_target.",
        **{name: place and f"words.{place}" for name, place in OFFICIAL_NAMES.items()},
    }
    networks: ClassVar = {"param/": "tokenizer."}
    computed = ("encoder.", "mask_token", "head.", "late_blocks.")
    not_compared: ClassVar = {"aux/kmeans_samples": "the input of k-means"}

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        require(config, qkv_bias=True, use_abs_pos_emb=True, use_mean_pooling=True, use_rel_pos_bias=False)
        require(config, init_values=False, use_shared_rel_pos_bias=False)
        for key, only in {"beta": 1.0, "process_type": "default", "rec_loss_type": "cosine"}.items():
            if config.get(key, only) != only:
                raise InputError(f"VQ-KD has no {key} = {config[key]} here")
        vqkd = {
            "vocabulary": config["codebook_size"],
            "embed_dim": config["embed_dim"],
            "depth": config["depth"],
            "num_heads": config["num_heads"],
            "mlp_ratio": config["mlp_ratio"],
            "code_dim": config["codebook_dim"],
            "decoder_dim": config["decoder_embed_dim"],
            "decoder_depth": config["decoder_depth"],
            "decoder_heads": config["decoder_num_heads"],
            "decay": config["decay"],
            "teacher": "hog",
        }
        method = {"hidden_patches": 1, "min_block": 1, "early_layers": 1, "late_blocks": 1, "vqkd": vqkd}
        encoder = {"patch_size": config["patch_size"], "embed_dim": 4, "depth": 1, "num_heads": 1}
        return ModelSetup("beitv2", "vit", config["img_size"], 3, method, encoder)

    def complete(self, golden: Golden, method: Method) -> None:
        """The whole network in place of the tokenizer, which holds it only while it is trained."""
        tokenizer: Any = method.tokenizer
        config: VQKDConfig = tokenizer.config
        words = tokenizer.words.requires_grad_(True)
        method.tokenizer = config.network(words, tokenizer.grid, golden.config["teacher_dim"])

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        network: Any = method.tokenizer
        untouched: VQKD = copy.deepcopy(network).eval()
        grid = network.decoder.grid
        pixels = golden.images() * 2 - 1
        read = network(pixels, golden.tensor("input/teacher").unflatten(1, grid))
        quantizer = untouched.words.quantizer
        with torch.no_grad():
            tokens = untouched.words(pixels)
            quantizer.count_usage(F.one_hot(tokens.flatten(), len(quantizer.codes)).sum(0).to(quantizer.usage.dtype))
        return self._kmeans(golden) | {
            "out/loss": read.commitment + read.error,
            "out/quant_loss": read.commitment,
            "out/rec_loss": read.error,
            "out/tokens": read.tokens,
            "out/rec": read.prediction,
            "aux/to_quantizer": read.features.permute(0, 3, 1, 2),
            "aux/quantized": read.codes.permute(0, 3, 1, 2),
            "after/codebook": network.words.quantizer.codes,
            "after/cluster_size": network.words.quantizer.usage,
            "aux/eval_tokens": tokens,
            "aux/eval_cluster_size": quantizer.usage,
        }

    def _kmeans(self, golden: Golden) -> dict[str, Tensor]:
        """The k-means that starts a codebook, on the file's own samples."""
        generator = torch.Generator().manual_seed(golden.meta["seed"])
        means, sizes = kmeans_on_sphere(golden.tensor("aux/kmeans_samples"), golden.config["kmeans_k"], generator)
        return {"aux/kmeans_means": means, "aux/kmeans_bins": sizes}
