"""Tests of the method: it learns, and it runs."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from mimbench.api import Method
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench_example.deblur import Deblur

MODULE = Path(__file__).parents[1] / "mimbench_example" / "deblur.py"
RUN = ["--method", "deblur", "--task", "knn"]


def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mimbench", "run", "--plugin", str(MODULE), *RUN, "--recipe", "smoke", "--json"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["method"]["name"] == "deblur"


def build() -> Deblur:
    encoder = ViT(ViTConfig(patch_size=4, embed_dim=32, depth=2, num_heads=2), image_size=16, in_channels=1)
    return Deblur(Deblur.Config(), encoder)


def loss_of(method: Method, images: torch.Tensor) -> torch.Tensor:
    mask = method.sample_mask(len(images), torch.Generator().manual_seed(0))
    return method.loss(method.predict(images, mask), method.target(images), mask)


def test_it_learns_one_batch() -> None:
    torch.manual_seed(0)
    method, images = build(), torch.rand(8, 1, 16, 16)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = loss_of(method, images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_encoder_receives_a_gradient() -> None:
    method = build()
    loss_of(method, torch.rand(8, 1, 16, 16)).backward()
    gradients = [weight.grad for weight in method.encoder.parameters() if weight.grad is not None]
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
