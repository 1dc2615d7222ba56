"""The same pretrainings written plainly with timm, as a user would: a local yardstick for benchmarks/step.py.

    python benchmarks/eager_baseline.py                              # small models, on what there is
    python benchmarks/eager_baseline.py --size full --device cuda    # ViT-B/16 at 224 px, Swin-B at 192 px

No code of mimbench is used for the step, and none of the official repositories. A step is forward, backward, clipping
and torch's AdamW in bf16 autocast on CUDA, on images that are on the device already.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn


class SimMIMViT(nn.Module):
    """SimMIM (arXiv:2111.09886): mask tokens in all masked patches, a shared relative bias, a linear head, L1."""

    def __init__(self, size: int, patch: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch, self.grid = patch, size // patch
        self.body = Beit(
            img_size=size, patch_size=patch, num_classes=0, embed_dim=dim, depth=depth, num_heads=heads,
            use_abs_pos_emb=False, use_shared_rel_pos_bias=True, init_values=0.1,
        )  # fmt: skip
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.head = nn.Linear(dim, patch * patch * 3)

    def tokens(self, images: Tensor, mask: Tensor) -> Tensor:
        x = self.body.patch_embed(images)
        x = torch.where(mask.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        x = torch.cat((self.body.cls_token.expand(len(x), -1, -1), x), 1)
        bias = self.body.rel_pos_bias()
        for block in self.body.blocks:
            x = block(x, shared_rel_pos_bias=bias)
        return self.body.norm(x)[:, 1:]

    def forward(self, images: Tensor) -> Tensor:
        coarse = torch.rand(len(images), (self.grid // 2) ** 2, device=images.device).argsort(1).argsort(1)
        coarse = (coarse < 0.6 * coarse.shape[1]).view(-1, self.grid // 2, self.grid // 2)
        mask = coarse.repeat_interleave(2, 1, output_size=self.grid).repeat_interleave(2, 2, output_size=self.grid)
        prediction = self.head(self.tokens(images, mask.flatten(1)))
        target = F.pixel_unshuffle(images, self.patch).flatten(2).transpose(1, 2)
        error = F.l1_loss(prediction.float(), target, reduction="none")
        weight = mask.flatten(1).unsqueeze(-1)
        return (error * weight).sum() / (weight.sum() + 1e-5) / error.shape[-1]


class BEiT(SimMIMViT):
    """BEiT (arXiv:2106.08254): cross-entropy of visual words; the tokenizer is the nearest of `words` patches."""

    def __init__(self, size: int, patch: int, dim: int, depth: int, heads: int, words: int = 8192) -> None:
        super().__init__(size, patch, dim, depth, heads)
        self.head = nn.Linear(dim, words)
        self.register_buffer("words", torch.randn(words, patch * patch * 3))

    def forward(self, images: Tensor) -> Tensor:
        places = torch.rand(len(images), self.grid**2, device=images.device).argsort(1).argsort(1)
        mask = places < round(75 / 196 * self.grid**2)
        with torch.no_grad():
            patches = F.pixel_unshuffle(images, self.patch).flatten(2).transpose(1, 2)
            distance = self.words.square().sum(1) - 2 * patches @ self.words.T
            target = distance.argmin(-1)
        logits = self.head(self.tokens(images, mask)).float()
        loss = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        return (loss * mask).sum() / mask.sum()


class SimMIMSwin(nn.Module):
    """SimMIM with a Swin: the same, on maps."""

    def __init__(self, size: int, dim: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int) -> None:
        super().__init__()
        self.grid, self.stride = size // 4, 4 * 2 ** (len(depths) - 1)
        self.body = SwinTransformer(
            img_size=size, embed_dim=dim, depths=depths, num_heads=heads, window_size=window, num_classes=0
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, dim))
        self.head = nn.Conv2d(self.body.num_features, self.stride**2 * 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        side = images.shape[-1] // 32
        order = torch.rand(len(images), side * side, device=images.device).argsort(1).argsort(1)
        coarse = (order < 0.6 * side * side).view(-1, 1, side, side).float()
        mask = F.interpolate(coarse, self.grid).bool().permute(0, 2, 3, 1)
        x = self.body.patch_embed(images)
        x = torch.where(mask, self.mask_token.to(x.dtype), x)
        x = self.body.norm(self.body.layers(x)).permute(0, 3, 1, 2)
        prediction = F.pixel_shuffle(self.head(x), self.stride)
        error = F.l1_loss(prediction.float(), images, reduction="none")
        weight = F.interpolate(coarse, images.shape[-1])
        return (error * weight).sum() / (weight.sum() + 1e-5) / 3


class MAE(nn.Module):
    """MAE (arXiv:2111.06377): the encoder sees a quarter of the patches; a narrow decoder predicts the others."""

    def __init__(self, size: int, patch: int, dim: int, depth: int, heads: int, decoder: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch, (narrow, blocks, narrow_heads) = patch, decoder
        self.body = VisionTransformer(
            img_size=size, patch_size=patch, num_classes=0, embed_dim=dim, depth=depth, num_heads=heads
        )
        self.project, self.mask_token = nn.Linear(dim, narrow), nn.Parameter(torch.zeros(1, 1, narrow))
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, narrow) * 0.02, requires_grad=False)
        self.blocks = nn.Sequential(*(Block(narrow, narrow_heads, qkv_bias=True) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(narrow), nn.Linear(narrow, patch * patch * 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.body.patch_embed(images) + self.body.pos_embed[:, 1:]
        order = torch.rand(x.shape[:2], device=images.device).argsort(1)
        keep = order[:, : x.shape[1] // 4].unsqueeze(-1)
        token = (self.body.cls_token + self.body.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = self.body.norm(self.body.blocks(torch.cat((token, x.gather(1, keep.expand(-1, -1, x.shape[-1]))), 1)))
        x = self.project(x)
        grid = self.mask_token.to(x.dtype).expand(len(x), order.shape[1], -1)
        grid = grid.scatter(1, keep.expand(-1, -1, x.shape[-1]), x[:, 1:])
        x = self.blocks(torch.cat((x[:, :1], grid), 1) + self.positions)
        prediction = self.head(self.norm(x))[:, 1:].float()
        target = F.pixel_unshuffle(images, self.patch).flatten(2).transpose(1, 2)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        masked = torch.ones(order.shape, device=images.device).scatter(1, keep.squeeze(-1), 0.0)
        return ((prediction - target).square().mean(-1) * masked).sum() / masked.sum()


MODELS: dict[str, dict[str, tuple[Callable[[], nn.Module], int]]] = {
    "full": {
        "simmim vit-b": (lambda: SimMIMViT(224, 16, 768, 12, 12), 224),
        "simmim swin-b": (lambda: SimMIMSwin(192, 128, (2, 2, 18, 2), (4, 8, 16, 32), 6), 192),
        "mae vit-b": (lambda: MAE(224, 16, 768, 12, 12, (512, 8, 16)), 224),
        "beit vit-b": (lambda: BEiT(224, 16, 768, 12, 12), 224),
    },
    "small": {
        "simmim vit": (lambda: SimMIMViT(32, 4, 32, 2, 2), 32),
        "simmim swin": (lambda: SimMIMSwin(64, 16, (1, 1, 1, 1), (1, 1, 2, 2), 2), 64),
        "mae vit": (lambda: MAE(32, 4, 32, 2, 2, (16, 1, 2)), 32),
        "beit vit": (lambda: BEiT(32, 4, 32, 2, 2, 64), 32),
    },
}
"""Name -> how the model is built, and the side of its images, px."""


def measure(model: nn.Module, size: int, batch: int, warm: int, steps: int, device: torch.device) -> dict[str, float]:
    model, images = model.to(device).train(), torch.randn(batch, 3, size, size, device=device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4, weight_decay=0.05)
    on_cuda = device.type == "cuda"

    def now() -> float:
        if on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() if on_cuda else time.process_time()

    start = now()
    for step in range(warm + steps):
        if step == warm:
            start = now()
        with torch.autocast(device.type, torch.bfloat16, enabled=on_cuda):
            loss = model(images)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        optimizer.zero_grad()
    seconds = (now() - start) / steps
    memory = torch.cuda.max_memory_allocated() / 2**30 if on_cuda else 0.0
    return {"images_per_second": batch / seconds, "milliseconds": 1000 * seconds, "peak_memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(MODELS), default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=0, help="default: 128 on CUDA, 16 elsewhere")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device, rows = torch.device(arguments.device), {}
    batch = arguments.batch or (128 if device.type == "cuda" else 16)
    for name, (build, size) in MODELS[arguments.size].items():
        torch.manual_seed(0)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        rows[name] = measure(build(), size, batch, arguments.warm, arguments.steps, device)
        print(f"{name:14} " + "  ".join(f"{key} {value:,.1f}" for key, value in rows[name].items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
