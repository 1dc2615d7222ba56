"""Images per second that one core loads with data.decode full and scaled, for several sizes of images and crops.

`python benchmarks/decoding.py` prints the table of docs/data.md. Images are smooth noise, as JPEGs of quality 90. CPU
time counts, which depends less on what else runs than elapsed time does; the faster of two epochs.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mimbench.contract import InputConfig
from mimbench.data import training_loader
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig

CASES = ((500, 375, 224, 40), (500, 375, 112, 40), (1600, 1200, 224, 40), (4000, 3000, 224, 12))
"""Width, height and side of the crop in px, and number of images."""
BATCH = 4


def make(folder: Path, width: int, height: int, count: int) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        noise = generator.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((width, height), Image.BICUBIC).save(folder / f"{index}.jpg", quality=90)


def images_per_second(split, size: int, decoding: str) -> float:
    view = InputConfig(image_size=size, crop_scale=(0.2, 1.0), crop_ratio=(3 / 4, 4 / 3), flip=0.5)
    options = {"batch_size": BATCH, "seed": 0, "device": torch.device("cpu")}
    loader = training_loader(split, view, decoding=decoding, **options)
    rates = []
    for _ in range(2):
        start = time.process_time()
        batches = sum(1 for _ in loader)
        rates.append(batches * BATCH / (time.process_time() - start))
    return max(rates)


def main() -> None:
    torch.set_num_threads(1)
    print("| Image, px | Crop, px | `full` | `scaled` |\n| --- | --- | --- | --- |")
    for width, height, size, count in CASES:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder) / "images" / "a", width, height, count)
            config = FolderConfig(root=Path(folder) / "images", verify=False, fingerprint="names", val_fraction=0.01)
            split = Folder(config, Path(folder) / "cache").split("train")
            full, scaled = (images_per_second(split, size, decoding) for decoding in ("full", "scaled"))
        print(f"| {width} x {height} | {size} | {full:.3g} | {scaled:.3g} |", flush=True)


if __name__ == "__main__":
    main()
