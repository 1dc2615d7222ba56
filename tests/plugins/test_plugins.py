"""Methods as plugins, built from mimbench.api alone: each pretrains and is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from plugins.coarse import Coarse
from plugins.distill import Distill
from safetensors.torch import save_file

from helpers.random_inputs import seeded
from mimbench.api import patchify
from mimbench.contract import InputConfig, InputError
from mimbench.encoders.vit import ViT
from mimbench.testing import check_method

FOLDER = Path(__file__).parent
GOLDEN = FOLDER.parent / "golden"


def vit(**options):
    config = ViT.Config(
        **{"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "position": "sincos"} | options
    )
    return ViT(config, image_size=32, in_channels=3)


def teacher_file(folder):
    torch.manual_seed(0)
    teacher = timm.create_model("vit_tiny_patch16_224", img_size=28, patch_size=4, in_chans=1, num_classes=0)
    path = folder / "teacher.safetensors"
    save_file(teacher.state_dict(), path)
    return path


RUNS = {
    "distill": [],
    "coarse": [],
}


@pytest.mark.parametrize("name", RUNS)
def test_it_pretrains_and_is_measured(name, quick, registered, tmp_path):
    settings = list(RUNS[name])
    if name == "distill":
        settings.append(f"method.teacher={teacher_file(tmp_path)}")
    options = [part for setting in settings for part in ("--set", setting)]
    done = quick("run", "--method", name, "--task", "knn", "--recipe", "smoke", "--json", *options)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["method"] == {"name": name, "version": "1"}
    assert 0 < record["metrics"]["top1_k20"]["value"] <= 100


CHECKED = {
    "coarse": (Coarse, {}, None),
}


@pytest.mark.parametrize(("method", "options", "encoder"), CHECKED.values(), ids=CHECKED)
def test_it_passes_the_checks_for_methods(method, options, encoder):
    results = check_method(method, options, encoder=encoder)
    assert [result for result in results if result.status == "failed"] == []
    assert {result.name for result in results if result.status == "waived"} == set(getattr(method, "waivers", {}))
    assert sum(result.status == "passed" for result in results) > 10


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_distill_passes_the_checks_for_methods(tmp_path):
    size = InputConfig(image_size=28)
    results = check_method(Distill, {"teacher": teacher_file(tmp_path)}, encoder="vit", input_config=size)
    assert [result for result in results if result.status != "passed"] == []


def test_the_teacher_of_distill_enters_by_content(tmp_path):
    path = teacher_file(tmp_path)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    assert Distill.Config(teacher=path).shaping() == Distill.Config(teacher=copy).shaping()
    encoder = ViT(ViT.Config(patch_size=4, embed_dim=16, depth=1, num_heads=2), image_size=28, in_channels=1)
    method = Distill(Distill.Config(teacher=copy), encoder)
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())
    assert not any(name.startswith("teacher") for name in method.state_dict())
    with pytest.raises(InputError, match=r"copy\.safetensors holds other weights: size mismatch for pos_embed"):
        Distill(Distill.Config(teacher=copy), vit())


def test_coarse_predicts_means_of_masked_patches():
    method = Coarse(Coarse.Config(cells=2), vit(position="learned"))
    images = torch.randn(2, 3, 32, 32, generator=seeded())
    target = method.target(images)
    assert target.shape == (2, 8, 8, 12)
    patch = images[1, :, 4:8, 12:16]
    assert torch.allclose(target[1, 1, 3, :3], patch[:, :2, :2].mean((1, 2)), atol=1e-6)
    assert torch.allclose(target[1, 1, 3, -3:], patch[:, 2:, 2:].mean((1, 2)), atol=1e-6)
    mask = method.sample_mask(2, seeded())
    assert method.loss(torch.where(mask.unsqueeze(-1), target, 7.0), target, mask).item() == 0
    assert method.loss(torch.where(mask.unsqueeze(-1), 7.0, target), target, mask).item() > 1
    pixels = Coarse(Coarse.Config(cells=4), vit())
    assert torch.equal(pixels.target(images), patchify(images, 4))
    with pytest.raises(InputError, match=r"method\.cells 3 does not divide a patch of 4 px"):
        Coarse(Coarse.Config(cells=3), vit())
