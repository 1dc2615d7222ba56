"""Tests of the encoder: its maps and features have the shapes that it declares, and it runs."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from mimbench_example.plain_cnn import PlainCNN

MODULE = Path(__file__).parents[1] / "mimbench_example" / "plain_cnn.py"
RUN = ["--method", "simmim", "--task", "knn", "--set", "encoder.name=plain-cnn"]


def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mimbench", "run", "--plugin", str(MODULE), *RUN, "--recipe", "smoke", "--json"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["recipe"]["encoder"]["name"] == "plain-cnn"


def test_outputs_have_the_declared_shapes() -> None:
    encoder = PlainCNN(PlainCNN.Config(), image_size=16, in_channels=3)
    tokens = encoder.embed(torch.rand(2, 3, 16, 16))
    side = 16 // encoder.patch_size
    assert tokens.shape == (2, side, side, encoder.embed_dim)
    layers = encoder.forward_layers(tokens)
    assert len(layers) == encoder.num_layers
    side = 16 // encoder.stride
    assert layers[-1].dense.shape == (2, encoder.out_dim, side, side)
    assert layers[-1].pooled.shape == (2, encoder.out_dim)
    assert layers[-1].prefix.shape[1] == encoder.num_prefix_tokens


def test_each_parameter_belongs_to_a_layer() -> None:
    encoder = PlainCNN(PlainCNN.Config(), image_size=16, in_channels=3)
    depths = {encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert depths == set(range(encoder.num_layers + 2))
