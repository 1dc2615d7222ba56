"""torchvision's benchmark sets, from a local root; downloaded only on request."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from mimbench.contract import ArraySplit, DataConfig, DataSizes, InputError, SplitName, cosmetic
from mimbench.data.files.listing import subfolders
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig
from mimbench.data.sources.in_memory import InMemoryDataset
from mimbench.errors import MissingData


class DownloadConfig(DataConfig):
    """Options of a set that can be downloaded."""

    download: bool = cosmetic(False)
    """Download the files into `root` if they are absent."""


class _Vision(InMemoryDataset):
    """A torchvision set that fits in memory: uint8 [N, 3, H, W]."""

    Config = DownloadConfig
    config: DownloadConfig
    channels = 3
    sizes: ClassVar[DataSizes]
    holds: str
    """What `root` holds once the set is there."""
    download_size: str

    def __init__(self, config: DownloadConfig, cache: Path) -> None:
        super().__init__(config, cache)
        if config.root is None:
            raise MissingData(f"{self.name} needs data.root: pass --set data.root=PATH of the folder with {self.holds}")
        self._root = config.root.expanduser()
        try:
            self.split("train")  # reads the files now, before anything else runs
        except (RuntimeError, OSError) as error:
            raise MissingData(self._missing(error)) from error

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes:
        return cls.sizes

    @abstractmethod
    def _load(self, name: SplitName) -> ArraySplit: ...

    def make_splits(self) -> dict[str, ArraySplit]:
        return {"train": self._load("train"), "test": self._load("test")}

    def _missing(self, error: Exception) -> str:
        if self.config.download:
            return f"{self.name} could not be downloaded to {self._root}: {error}"
        return (
            f"{self.name} is not, or not whole, under {self._root}: pass --set data.root=PATH of the folder with "
            f"{self.holds}, or --set data.download=true to fetch {self.download_size} into it"
        )


class CIFAR10(_Vision):
    """CIFAR-10: 50,000 + 10,000 images of 32 x 32 px (Krizhevsky, 2009)."""

    name = "cifar10"
    sizes = DataSizes(50_000, 10_000, classes=10, channels=3, source="Krizhevsky, 2009")
    holds = "cifar-10-batches-py"
    download_size = "170 MB"

    def _load(self, name: SplitName) -> ArraySplit:
        from torchvision.datasets import CIFAR10 as Source

        return _from_cifar(Source(self._root, train=name == "train", download=self.config.download))


class CIFAR100(_Vision):
    """CIFAR-100: 50,000 + 10,000 images of 32 x 32 px, 100 fine classes (Krizhevsky, 2009)."""

    name = "cifar100"
    sizes = DataSizes(50_000, 10_000, classes=100, channels=3, source="Krizhevsky, 2009")
    holds = "cifar-100-python"
    download_size = "169 MB"

    def _load(self, name: SplitName) -> ArraySplit:
        from torchvision.datasets import CIFAR100 as Source

        return _from_cifar(Source(self._root, train=name == "train", download=self.config.download))


class STL10(_Vision):
    """STL-10: 5,000 + 8,000 labelled images of 96 x 96 px (Coates et al., 2011)."""

    name = "stl10"
    sizes = DataSizes(5_000, 8_000, classes=10, channels=3, source="Coates et al., AISTATS 2011")
    holds = "stl10_binary"
    download_size = "2.6 GB"

    def _load(self, name: SplitName) -> ArraySplit:
        from torchvision.datasets import STL10 as Source

        source = Source(self._root, split=name, download=self.config.download)
        labels = torch.from_numpy(source.labels.astype(np.int64))
        return ArraySplit(torch.from_numpy(source.data), labels, tuple(source.classes))


class ImageNetConfig(FolderConfig):
    """A folder's options. By default nothing of the 1.3 million files is opened before training."""

    verify: bool = cosmetic(False)
    fingerprint: Literal["content", "names"] = cosmetic("names")
    download: bool = cosmetic(False)
    """ImageNet cannot be downloaded without an account; True is an error that says how to get it."""


class ImageNet(Folder):
    """ImageNet-1k (ILSVRC 2012) as class folders, root/train/<wnid>/* and root/val/<wnid>/*."""

    name = "imagenet"
    Config = ImageNetConfig
    config: ImageNetConfig

    def __init__(self, config: ImageNetConfig, cache: Path) -> None:
        if config.download:
            raise InputError(
                f"imagenet cannot be downloaded without an account: get {_ARCHIVES} "
                f"at https://image-net.org/download, then unpack them: {_UNPACK}"
            )
        super().__init__(config, cache)

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes:
        return DataSizes(1_281_167, 50_000, classes=1000, channels=3, source="arXiv:1409.0575, table 2")

    def _split_folders(self) -> tuple[Path, Path]:
        train, val = self.root / "train", self.root / "val"
        if not train.is_dir() or not val.is_dir():
            raise InputError(f"imagenet wants train/ and val/ under {self.root}; to unpack the archives: {_UNPACK}")
        if not subfolders(val):
            raise InputError(f"{val} has no class folders; to sort the images into them: {_UNPACK}")
        return train, val


_ARCHIVES = "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz"
_UNPACK = (
    "python -c \"from torchvision.datasets import ImageNet; [ImageNet('ROOT', part) for part in ('train', 'val')]\" "
    "with the archives in ROOT"
)


def _from_cifar(source: Any) -> ArraySplit:
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    return ArraySplit(images, torch.tensor(source.targets), tuple(source.classes))
