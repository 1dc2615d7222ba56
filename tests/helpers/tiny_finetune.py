"""A fine-tuning so small that it takes a second."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import torch
from rich.console import Console

from mimbench.contract import ArraySplit, DataConfig, Dataset, InputConfig, TaskContext
from mimbench.contract.validation import validate
from mimbench.encoders.convnet import ConvNeXt, ConvNeXtConfig, ResNet, ResNetConfig
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.engine.fit import fit
from mimbench.recipe.document import merge
from mimbench_tasks.finetune.task import Finetune

CPU = torch.device("cpu")
INPUT = InputConfig(image_size=8, crop_scale=(0.5, 1.0), mean=(0.5,), std=(0.5,))
SMALL = {"train": {"epochs": 2, "batch_size": 8, "schedule": {"warmup_epochs": 0}, "checkpoint_every": 1}}
EVERYTHING = SMALL | {
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "erase_prob": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
    "ema_decay": 0.5,
    "position": "relative-per-block",
    "norm": "fresh",
}


def encoder(kind="vit", **options):
    torch.manual_seed(1)
    if kind == "vit":
        config = ViTConfig(**{"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2} | options)
        built = ViT(config, image_size=8, in_channels=1)
        for name, parameter in built.named_parameters():
            if name.endswith(("table", "token")):
                torch.nn.init.normal_(parameter, std=0.02)
        return built
    if kind == "swin":
        config = SwinConfig(patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window=2)
        return Swin(config, image_size=8, in_channels=1)
    if kind == "convnext":
        return ConvNeXt(ConvNeXtConfig(patch_size=2, dims=(8, 16), depths=(1, 1)), image_size=8, in_channels=1)
    return ResNet(
        ResNetConfig(block="basic", dims=(8, 16), depths=(1, 1), stem_pool=False), image_size=8, in_channels=1
    )


class Greys(Dataset):
    """Images of four classes, each of a grey of its own, under noise."""

    name, channels = "greys", 1

    def __init__(self, n: int = 32, classes: int = 4, side: int = 8) -> None:
        super().__init__(DataConfig(), Path())
        self.classes = tuple(map(str, range(classes)))
        self.labels = torch.arange(n) % classes
        self.images = torch.randint(0, 60, (n, 1, side, side), generator=torch.Generator().manual_seed(0)).byte()
        self.images += 50 * self.labels.byte()[:, None, None, None]

    def fingerprint(self) -> str:
        return "greys"

    def split(self, name):
        return ArraySplit(self.images, self.labels, self.classes)


def task(*options, protocol="default"):
    table = functools.reduce(merge, options, {"protocol": protocol, **Finetune.protocols[protocol].options})
    return Finetune(validate(Finetune.Config, table, "tasks.finetune"))


def context(workdir, seed=0):
    training = functools.partial(
        fit, seed=seed, device=CPU, workdir=workdir / "training", console=Console(file=io.StringIO())
    )
    return TaskContext(
        seed=seed, device=CPU, workdir=workdir, input=INPUT, fit=training, features=None, say=lambda text: None
    )
