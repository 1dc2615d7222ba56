"""What the tests of tasks on frozen features share: labelled images without content, and features made by hand."""

from __future__ import annotations

from pathlib import Path

import torch

from mimbench.contract import ArraySplit, DataConfig, Dataset, InputConfig, TaskContext
from mimbench.encoders.vit import ViT, ViTConfig

ENCODER = ViT(ViTConfig(patch_size=4, embed_dim=16, depth=2, num_heads=2), image_size=8, in_channels=1)


class Labelled(Dataset):
    """Images of `classes` classes in each split, every class as often as the other; or labels as given."""

    name, channels = "labelled", 1

    def __init__(self, n: int = 0, classes: int = 0, *, train=None, test=None) -> None:
        super().__init__(DataConfig(), Path())
        splits = {"train": train, "test": test}
        self.labels = {
            name: torch.arange(n) % classes if labels is None else torch.tensor(labels)
            for name, labels in splits.items()
        }
        self.classes = tuple(map(str, range(max(int(labels.max()) for labels in self.labels.values()) + 1)))

    def fingerprint(self) -> str:
        return "labelled"

    def split(self, name):
        labels = self.labels[name]
        return ArraySplit(torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8), labels, self.classes)


class HandMade:
    """A FeatureSource: `make(labels, which, layer)` gives the features."""

    def __init__(self, make) -> None:
        self.make, self.passes = make, 0

    def __call__(self, split, which, *, layer, pooling):
        return self.each_layer(split, which, layers=[layer], pooling=pooling)[0]

    def each_layer(self, split, which, *, layers, pooling):
        self.passes += 1
        return [self.make(split.labels, which, layer) for layer in layers]


def context(source, folder: Path, seed: int = 0, fit=None) -> TaskContext:
    return TaskContext(
        seed=seed, device=torch.device("cpu"), workdir=folder, fit=fit, features=source, say=lambda text: None,
        input=InputConfig(image_size=8, mean=(0.5,), std=(0.5,)),
    )  # fmt: skip


def leaked(labels, which, layer):
    return torch.nn.functional.one_hot(labels, 10).float()


def noise(labels, which, layer):
    return torch.randn(len(labels), 10, generator=torch.Generator().manual_seed(int(which == "train")))


def blurred(labels, which, layer):
    """Class means with as much noise."""
    return leaked(labels, which, layer) + 0.6 * noise(labels, which, layer)
