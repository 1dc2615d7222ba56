"""Tests of the dataset: its splits are sound and always the same, and it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mimbench.api import SplitName
from mimbench_example.shapes import Shapes

MODULE = Path(__file__).parents[1] / "mimbench_example" / "shapes.py"
RUN = ["--method", "random-init", "--task", "knn", "--set", "data.name=shapes"]


def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mimbench", "run", "--plugin", str(MODULE), *RUN, "--recipe", "smoke", "--json"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["dataset"]["name"] == "shapes"


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_split_is_sound(tmp_path: Path, name: SplitName) -> None:
    dataset = Shapes(Shapes.Config(), tmp_path)
    split = dataset.split(name)
    image, label = split[0]
    assert image.dtype == torch.uint8
    assert len(image) == dataset.channels
    assert len(split.labels) == len(split)
    assert set(split.labels.tolist()) == set(range(len(split.classes)))
    assert label == split.labels[0]


def test_the_content_is_always_the_same(tmp_path: Path) -> None:
    fingerprints = {Shapes(Shapes.Config(), tmp_path).fingerprint() for _ in range(2)}
    assert len(fingerprints) == 1
