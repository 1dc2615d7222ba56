"""Images of scenes, decoded once when their set is opened."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from helpers.tiffs import tiff
from mimbench.data.sources.scene_options import SceneConfig, check_images
from mimbench.errors import InputError


def test_deep_images_are_judged_as_a_set(tmp_path):
    cache, values = tmp_path / "cache", np.arange(64, dtype=np.uint16).reshape(8, 8)
    for name, stored in {
        "dim.png": values * 64,
        "full.png": values * 1024,
        "bytes.png": values.astype(np.uint8),
    }.items():
        Image.fromarray(stored).save(tmp_path / name)

    def notes(*names, **options):
        return check_images(names, tmp_path, cache, SceneConfig(**options), "set")

    (note,) = notes("dim.png", "bytes.png")
    assert note.startswith(f"1 16-bit images under {tmp_path} use a small part of the range of values, 0 to 65535")
    assert note.endswith("save them with 8 bits, brighter")
    assert notes("full.png", "bytes.png") == notes("dim.png", verify=False) == ()
    tiff(tmp_path / "negative.tif", values.astype(np.int16) - 9)
    with pytest.raises(InputError, match=r"cannot be read, such as 'negative\.tif': .*leave the range of 0 to 65535"):
        notes("negative.tif")
