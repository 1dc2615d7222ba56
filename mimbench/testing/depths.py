"""Images whose colour shows their depth, for checks of tasks that need depth."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mimbench.contract import DataConfig, Dataset, DepthSplit, SplitName
from mimbench.testing.colours import RGB, Kind, LabelLog

SIDE = 16
"""Of an image, px."""
DEPTHS = tuple(1.6**step for step in range(len(RGB)))
"""Of each colour, m. Neighbours differ by more than 1.25, so that a constant is right for one of them only."""
_EACH = {"train": 12, "test": 8}
"""Images per colour."""


class _Split(DepthSplit):
    max_depth = 12.0

    def __init__(self, files: list[Path], depths: list[float], log: LabelLog | None) -> None:
        self.files, self.depths, self.log = files, depths, log

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> Path:
        return self.files[index]

    def shape(self, index: int) -> tuple[int, int]:
        return SIDE, SIDE

    def depth(self, index: int) -> Tensor:
        if self.log is not None:
            self.log.read()
        return torch.full((SIDE, SIDE), self.depths[index])


class ColourDepths(Dataset):
    """RGB images of 16 x 16 px with one colour and one depth each. The kinds are those of Colours."""

    name, channels, side = "colour-depths", 3, SIDE
    provides = frozenset({"depth"})

    def __init__(self, kind: Kind, folder: Path) -> None:
        super().__init__(DataConfig(), folder)
        self.kind = kind
        self.log = LabelLog()
        self._splits = {name: self._written(folder / name, name) for name in ("train", "test")}

    def fingerprint(self) -> str:
        return f"{self.name}-{self.kind}"

    def split(self, name: SplitName) -> DepthSplit:
        return self._splits[name]

    def _written(self, folder: Path, name: SplitName) -> DepthSplit:
        folder.mkdir(parents=True)
        generator = torch.Generator().manual_seed(["train", "test"].index(name))
        colours = torch.randperm(_EACH[name] * len(RGB), generator=generator) % len(RGB)
        strength, spread = (30, 200) if self.kind == "faint" else (200, 40)
        noise = torch.randint(0, spread, (len(colours), SIDE, SIDE, 3), generator=generator)
        images = (torch.tensor(RGB)[colours][:, None, None] * strength + noise).to(torch.uint8)
        files = [folder / f"{number}.png" for number in range(len(colours))]
        for path, image in zip(files, images, strict=True):
            Image.fromarray(image.numpy()).save(path)
        if self.kind == "shuffled" or (self.kind == "test-shuffled" and name == "test"):
            colours = colours[torch.randperm(len(colours), generator=generator)]
        return _Split(files, [DEPTHS[colour] for colour in colours], self.log if name == "test" else None)
