"""Encoders under the names that papers give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIZES = {
    ("vit", 192, 12): "Ti",
    ("vit", 384, 12): "S",
    ("vit", 768, 12): "B",
    ("vit", 1024, 24): "L",
    ("vit", 1280, 32): "H",
    ("swin", 96, (2, 2, 6, 2)): "T",
    ("swin", 96, (2, 2, 18, 2)): "S",
    ("swin", 128, (2, 2, 18, 2)): "B",
    ("swin", 192, (2, 2, 18, 2)): "L",
    ("convnext", 96, (3, 3, 9, 3)): "T",
    ("convnext", 96, (3, 3, 27, 3)): "S",
    ("convnext", 128, (3, 3, 27, 3)): "B",
    ("convnext", 192, (3, 3, 27, 3)): "L",
}
"""(encoder plugin, width, depth or depths) -> letter."""


def name_backbone(encoder: str, options: Mapping[str, Any]) -> str:
    """An encoder as papers call it: "ViT-B/16", "Swin-B", "ResNet-50"; else its plugin with width and depth.

    A model of timm has timm's name.
    """
    if encoder == "timm":
        return str(options["model"])
    depth = options.get("depths", options.get("depth"))
    depth = tuple(depth) if isinstance(depth, list | tuple) else depth
    width = (options.get("dims") or [options.get("embed_dim")])[0]
    size = _SIZES.get((encoder, width, depth))
    if encoder == "vit" and depth:
        return f"ViT-{size}/{options['patch_size']}" if size else f"vit {width}x{depth}/{options['patch_size']}"
    if encoder == "resnet" and isinstance(depth, tuple):
        return f"ResNet-{sum(depth) * (2 if options.get('block') == 'basic' else 3) + 2}"
    if size:
        return f"{'Swin' if encoder == 'swin' else 'ConvNeXt'}-{size}"
    return f"{encoder} {width} {'-'.join(map(str, depth))}" if isinstance(depth, tuple) and width else encoder
