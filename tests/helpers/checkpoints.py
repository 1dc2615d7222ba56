"""Official state dicts from the golden files, small encoders, and mmpretrain's names for both."""

import re
from pathlib import Path

import torch

from mimbench import registry
from mimbench.harness.planning.build import build
from mimbench.parity.golden import read_golden, setup_of

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ("simmim_vit_tiny", "simmim_swin_tiny", "mae_vit_tiny_rawpix", "beit_vit_tiny")

VIT = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
SWIN = {"patch_size": 4, "embed_dim": 8, "depths": [2, 2, 2, 1], "num_heads": [1, 2, 4, 8], "window": 4}

_TO_MM_VIT = (
    (r"^(cls_token|mask_token|pos_embed|rel_pos_bias|patch_embed|blocks|norm)", r"backbone.\1"),
    (r"backbone\.blocks\.", "backbone.layers."),
    (r"backbone\.norm\.", "backbone.ln1."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"^decoder_norm\.", "neck.ln1."),
    (r"^decoder", "neck.decoder"),
    (r"^lm_head\.", "head.cls_head."),
)
_TO_MM_SWIN = (
    (r"^encoder\.", "backbone."),
    (r"^backbone\.layers\.", "backbone.stages."),
    (r"^backbone\.norm\.", "backbone.norm3."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.attn\.(?!w_msa)", ".attn.w_msa."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"^decoder", "neck.decoder"),
)


def params(name):
    return read_golden(GOLDEN / f"{name}.npz").group("param/")


def method_of(name):
    return build(setup_of(read_golden(GOLDEN / f"{name}.npz"))[0])


def encoder_of(kind, options, image_size, channels=3):
    plugin = registry.encoders.load(kind)
    torch.manual_seed(0)
    return plugin(plugin.Config(**options), image_size=image_size, in_channels=channels).eval()


def renamed(state, rules):
    return {_sub(key, rules): value for key, value in state.items()}


def to_unfold(state):
    """Patch merging as a convolution-free nn.Unfold sees it: channels outermost, then rows, then columns."""
    return {key: _unfolded(value) if ".downsample." in key else value for key, value in state.items()}


def mm_vit(state):
    names = renamed({key.removeprefix("encoder."): value for key, value in state.items()}, _TO_MM_VIT)
    if "neck.decoder_embed.weight" in names:
        names["neck.mask_token"] = names.pop("backbone.mask_token")
    return names


def mm_swin(state):
    return to_unfold(renamed(state, _TO_MM_SWIN))


def noisy(module):
    """Every parameter and statistic replaced by noise, so that none can be mixed up with another."""
    generator = torch.Generator().manual_seed(1)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.05)
    return module


def _sub(key, rules):
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _unfolded(value):
    # The official order is [0::2, 0::2], [1::2, 0::2], [0::2, 1::2], [1::2, 1::2], each with all channels.
    quarters = value.chunk(4, -1)
    return torch.stack([quarters[0], quarters[2], quarters[1], quarters[3]], -1).flatten(-2)
