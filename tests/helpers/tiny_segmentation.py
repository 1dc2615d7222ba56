"""Tiny encoders, tiny labelled images and a plain training loop, for tests of the segmentation task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mimbench.contract import Encoder, FitReport, InputConfig, TaskContext
from mimbench.encoders.convnet import ConvNeXt, ConvNeXtConfig
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench_tasks.segmentation.config import SegmentationConfig

GREY = InputConfig(image_size=32, mean=(0.25,), std=(0.5,))


def vit(patch: int = 8, channels: int = 1, **options: Any) -> ViT:
    torch.manual_seed(0)
    config = ViTConfig(patch_size=patch, embed_dim=16, depth=3, num_heads=2, **options)
    return ViT(config, image_size=32, in_channels=channels)


def swin(channels: int = 1) -> Swin:
    torch.manual_seed(0)
    config = SwinConfig(patch_size=4, embed_dim=8, depths=(1, 1, 1), num_heads=(1, 2, 4), window=4)
    return Swin(config, image_size=32, in_channels=channels)


def convnext(channels: int = 1) -> ConvNeXt:
    torch.manual_seed(0)
    config = ConvNeXtConfig(patch_size=4, dims=(8, 16, 24), depths=(1, 1, 1), layer_scale=0.1)
    return ConvNeXt(config, image_size=32, in_channels=channels)


ENCODERS = {"vit": vit, "swin": swin, "convnext": convnext}


def settings(**options: Any) -> SegmentationConfig:
    train = {"epochs": 1, "batch_size": 2, "base_lr": 1e-3, "workers": 0, **options.pop("train", {})}
    return SegmentationConfig(**{"train": train, "channels": 16, "dropout": 0.0, **options})


def write_folder(
    root: Path, *, count: int = 4, size: tuple[int, int] = (40, 56), mode: str = "L", classes: int = 3, seed: int = 0
) -> Path:
    """An ADE20K-format folder: rectangles of one value a class, on pixels of no class (0)."""
    rng = np.random.default_rng(seed)
    for part, images in (("training", count), ("validation", max(2, count // 2))):
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True, exist_ok=True)
        for index in range(images):
            values = np.zeros(size, np.uint8)
            for label in range(classes):
                y, x = (int(rng.integers(0, side - 16)) for side in size)
                values[y : y + 16, x : x + 16] = label + 1
            Image.fromarray(values * 60).convert(mode).save(root / "images" / part / f"p {index}.png")
            Image.fromarray(values).save(root / "annotations" / part / f"p {index}.png")
    (root / "classes.txt").write_text("\n".join(f"kind {label}" for label in range(classes)))
    return root


@dataclass
class PlainFit:
    """The engine's part in a few lines; keeps its arguments."""

    arguments: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None

    def __call__(self, model: Any, loader: Any, config: Any, **arguments: Any) -> FitReport:
        self.arguments = {**arguments, "model": model, "batches": len(loader)}
        self.before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
        losses = []
        for epoch in range(config.epochs if self.epochs is None else self.epochs):
            loader.sampler.set_epoch(epoch)
            for batch in loader:
                torch.manual_seed(len(losses))
                output = model.training_step(batch, torch.Generator())
                optimizer.zero_grad()
                output.loss.backward()
                optimizer.step()
                losses.append(output.loss.item())
        return FitReport(losses, 0.0, len(losses) * config.batch_size, len(losses), None, "fp32")


def context(workdir: Path, fit: Any = None, encoder: Encoder | None = None) -> TaskContext:
    return TaskContext(
        seed=0,
        device=torch.device("cpu"),
        workdir=workdir,
        input=GREY if encoder is None or encoder.in_channels == 1 else InputConfig(image_size=32),
        fit=fit or PlainFit(),
        features=None,
        say=lambda line: None,
    )
