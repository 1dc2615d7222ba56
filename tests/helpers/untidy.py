"""A folder that holds every kind of image that people have, all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PER_KIND = 6
"""Images of a kind in the training split of each class."""


def every_kind(root: Path) -> Path:
    """root/train and root/val, with two classes each; val has one that train lacks, train an empty one.

    No file is damaged. `dog` is bright, `cat (große)` dark.
    """
    rng = np.random.default_rng(0)
    elsewhere = root.with_name("elsewhere")
    elsewhere.mkdir(parents=True)
    for part, count in (("train", PER_KIND), ("val", 2)):
        for label, level in (("cat (große)", 40), ("dog", 200)):
            folder = root / part / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = (level + rng.integers(0, 50, (20, 24, 3))).astype(np.uint8)
                _save_all(folder, elsewhere / f"{part} {level} {index}.png", Image.fromarray(pixels), index)
    Image.new("RGB", (8000, 6000), (200, 210, 220)).save(root / "train" / "dog" / "huge.jpg")
    (root / "train" / "nothing").mkdir()
    (root / "val" / "鳥").mkdir()
    Image.new("RGB", (9, 9), (9, 200, 9)).save(root / "val" / "鳥" / "only here.png")
    return root


def _save_all(folder: Path, elsewhere: Path, image: Image.Image, index: int) -> None:
    grey = image.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / f"plain {index}.png")
    grey.save(folder / f"grey-{index}.jpg")
    image.convert("RGBA").save(folder / f"alpha-{index}.png")
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / f"palette-{index}.gif")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / f"deep-{index}.png")
    image.convert("CMYK").save(folder / f"print-{index}.jpg")
    image.save(folder / f"turned-{index}.jpg", exif=exif)
    image.resize((1, 1)).save(folder / f"dot-{index}.bmp")
    image.save(folder / f"really a jpeg {index}.png", format="JPEG")
    image.save(folder / f"bild-ü-{index}.WEBP")
    image.save(elsewhere)
    (folder / f"linked-{index}.png").symlink_to(elsewhere)
