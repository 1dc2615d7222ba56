from __future__ import annotations

import pytest

from helpers.tiny_detection import TinyScenes, write_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> TinyScenes:
    folder = tmp_path_factory.mktemp("scenes")
    return TinyScenes(write_scenes(folder / "train", 4), write_scenes(folder / "test", 3, seed=1))
