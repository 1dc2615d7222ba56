"""A tiny encoder, tiny scenes and a plain training loop, for tests of the detection task."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from mimbench.contract import Config, Dataset, Encoder, Features, FitReport, InputConfig, SceneSplit, TaskContext
from mimbench_tasks.detection.config import DetectionConfig

CLASSES = ("disc", "box")


class TinyEncoder(Encoder):
    """One map at the patch's stride (`maps` 1), or a pyramid of several, from plain convolutions."""

    kind = "vit"

    def __init__(self, in_channels: int = 1, patch: int = 4, dim: int = 16, maps: int = 1) -> None:
        super().__init__(Config(), image_size=28, in_channels=in_channels)
        self.embed_dim = self.out_dim = dim
        self.patch_size, self.stride, self.num_layers = patch, patch, 2
        self.stem = nn.Conv2d(in_channels, dim, patch, patch)
        self.blocks = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(2))
        self.down = nn.ModuleList(nn.Conv2d(dim, dim, 2, 2) for _ in range(maps - 1))
        self.windows: tuple[int, tuple[int, ...]] | None = None

    def init_weights(self) -> None:
        """As timm's models have: what mmengine must not reach."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def embed(self, images):
        return self.stem(images).permute(0, 2, 3, 1)

    def forward_layers(self, tokens, layers=None, *, keep=None, final_norm=True):
        dense, outputs = tokens.permute(0, 3, 1, 2), []
        for block in self.blocks:
            dense = dense + block(dense).relu()
            outputs.append(Features(dense.mean((2, 3)), dense, dense.new_zeros(len(dense), 0, self.embed_dim)))
        return [outputs[index] for index in self.layer_indices(layers)]

    def pyramid(self, images):
        maps = [self.encode(self.embed(images))]
        for down in self.down:
            maps.append(down(maps[-1]))
        return maps

    @property
    def pyramid_strides(self):
        return tuple(self.patch_size * 2**level for level in range(len(self.down) + 1))

    @property
    def pyramid_dims(self):
        return (self.embed_dim,) * (len(self.down) + 1)

    def use_windows(self, window, global_blocks):
        self.windows = (window, global_blocks)

    def layer_of(self, parameter):
        return int(parameter.split(".")[1]) + 1 if parameter.startswith("blocks") else 0

    def no_weight_decay(self):
        return {"stem.weight"}


def write_scenes(folder: Path, count: int, *, size: tuple[int, int] = (64, 64), mode: str = "L", seed: int = 0):
    """Scenes of bright discs and boxes with boxes and polygons; returns their SceneSplit."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    height, width = size
    for index in range(count):
        pixels = rng.integers(0, 60, (height, width)).astype(np.uint8)
        for _ in range(2):
            side, label = int(rng.integers(14, 26)), int(rng.integers(2))
            x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            rows, columns = np.mgrid[:side, :side]
            shape = (rows - side / 2 + 0.5) ** 2 + (columns - side / 2 + 0.5) ** 2 <= side**2 / 4
            if label:
                shape = np.ones_like(shape)
            pixels[y : y + side, x : x + side][shape] = 220
            polygon = [x, y, x + side, y, x + side, y + side, x, y + side]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": 10 * (label + 1),
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
        name = f"scene {index}.png"
        Image.fromarray(pixels).convert(mode).save(folder / "images" / name)
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
    categories = [{"id": 10 * (label + 1), "name": name} for label, name in enumerate(CLASSES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))
    return SceneSplit(folder / "annotations.json", folder / "images", CLASSES, len(images))


class TinyScenes(Dataset):
    name = "tiny-scenes"
    provides = frozenset({"boxes", "masks"})
    channels = 1

    def __init__(self, train: SceneSplit, test: SceneSplit) -> None:
        self.splits = {"train": train, "test": test}

    def fingerprint(self):
        return "tiny"

    def split(self, name):
        return self.splits[name]


@dataclass
class PlainFit:
    """The engine's part in a few lines; keeps what it saw before the first step."""

    before: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, model: Any, loader: Any, config: Any, *, label: str, images_per_epoch: int) -> FitReport:
        model.train()
        self.before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        losses, steps = [], 0
        for epoch in range(config.epochs):
            loader.sampler.set_epoch(epoch)
            for batch in loader:
                torch.manual_seed(steps)
                output = model.training_step(batch, torch.Generator())
                optimizer.zero_grad()
                output.loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
                optimizer.step()
                losses.append(output.loss.item())
                steps += 1
        return FitReport(losses, 0.0, steps * config.batch_size, steps, None, "fp32")


def context(workdir: Path, fit: Any = None, seed: int = 0, mean=(0.2,), std=(0.3,)) -> TaskContext:
    return TaskContext(
        seed=seed,
        device=torch.device("cpu"),
        workdir=workdir,
        input=InputConfig(image_size=28, mean=mean, std=std),
        fit=fit or PlainFit(),
        features=lambda *args, **kwargs: torch.zeros(0),
        say=lambda line: None,
    )


def small_config(**options: Any) -> DetectionConfig:
    train = {"epochs": 1, "batch_size": 2, "clip_grad": 5.0, **options.pop("train", {})}
    return DetectionConfig(**{"train": train, "channels": 16, "convs": 1, "roi_samples": 8, **options})
