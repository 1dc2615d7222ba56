"""ViTs that are parts of tokenizers and teachers: images in, patches out. They are no encoders to pretrain."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.compute.blocks import mark_blocks
from mimbench.errors import InputError

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_CLIP_HEAD = 64
"""Channels of an attention head in every ViT of CLIP."""
_CLIP_NAMES = ("patch_embed.proj.weight", "pos_embed", "norm_pre.weight", "head.weight", "blocks.0.mlp.fc1.weight")


class PatchViT(nn.Module):
    """BEiT's ViT with learned positions and a class token, for images of one size; timm's model is `body`.

    Args:
        image_size: side of the images, px.
        channels: of the images.
        dim, depth, num_heads, mlp_ratio: of the transformer.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        channels: int,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        from timm.models.beit import Beit  # slow to import

        self.grid = (image_size // patch_size,) * 2
        self.body = Beit(
            img_size=image_size,
            patch_size=patch_size,
            in_chans=channels,
            num_classes=0,
            global_pool="avg",
            embed_dim=dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=True,
            use_abs_pos_emb=True,
        )
        mark_blocks(self.body.blocks)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> the patches of the last block, normed, [B, h, w, dim]."""
        return self.body.fc_norm(self.body.forward_features(images)[:, 1:]).unflatten(1, self.grid)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that get no weight decay, beyond 1-D ones."""
        return {"body.cls_token", "body.pos_embed"}


class CLIPTower(nn.Module):
    """The image tower of a CLIP with a ViT: patches of the last layer, normed and projected, as the class token is.

    Args:
        state: its state dict under timm's names, such as that of timm's vit_base_patch16_clip_quickgelu_224.
        grid: patches along a side; positions are resampled to it.
        quick_gelu: OpenAI's weights have this activation; most of OpenCLIP's have the exact GELU.

    Attributes:
        dim: channels of CLIP's embeddings.
        image_size: side of the images that it takes, px.

    Raises:
        InputError: `state` is of another model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: Mapping[str, Tensor], *, grid: int, quick_gelu: bool) -> None:
        super().__init__()
        from timm.layers import resample_abs_pos_embed  # slow to import
        from timm.models.vision_transformer import VisionTransformer

        missing = next((name for name in _CLIP_NAMES if name not in state), None)
        if missing:
            raise InputError(
                f"there is no tensor {missing!r}; save the image tower of CLIP under timm's names, such as the state "
                "dict of timm's vit_base_patch16_clip_quickgelu_224"
            )
        kernel, head = state["patch_embed.proj.weight"], state["head.weight"]
        self.dim, self.grid, self.image_size = len(head), (grid, grid), grid * kernel.shape[-1]
        self.body = VisionTransformer(
            img_size=self.image_size,
            patch_size=kernel.shape[-1],
            num_classes=self.dim,
            embed_dim=len(kernel),
            depth=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
            num_heads=max(1, len(kernel) // _CLIP_HEAD),
            mlp_ratio=len(state["blocks.0.mlp.fc1.weight"]) / len(kernel),
            pre_norm=True,
            norm_layer="layernorm",
            act_layer="quick_gelu" if quick_gelu else "gelu",
        )
        mark_blocks(self.body.blocks)
        positions = resample_abs_pos_embed(state["pos_embed"], new_size=[grid, grid], num_prefix_tokens=1)
        whole = {"head.bias": torch.zeros(self.dim), **state, "pos_embed": positions}
        _check_same(whole, self.body.state_dict())
        self.body.load_state_dict(whole)
        for name, values in (("mean", _CLIP_MEAN), ("std", _CLIP_STD)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """RGB pixels in [0, 1], [B, 3, H, W], resized if need be -> [B, grid, grid, dim]."""
        if pixels.shape[-1] != self.image_size:
            size = (self.image_size, self.image_size)
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True)
        patches = self.body.forward_features((pixels.clamp(0, 1) - self.mean) / self.std)[:, 1:]
        return self.body.head(patches).unflatten(1, self.grid)


def _check_same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in sorted(state.keys() ^ expected.keys()):
        raise InputError(f"there is {'an unknown' if name in state else 'no'} tensor {name!r}, unlike in a ViT of CLIP")
    for name, value in expected.items():
        if state[name].shape != value.shape:
            raise InputError(f"{name!r} is {list(state[name].shape)}, and a ViT of CLIP has {list(value.shape)}")
