"""Methods as plugins, built from mimbench.api alone: each pretrains and is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from plugins.coarse import Coarse
from plugins.distill import Distill
from plugins.mixmim import MixMIM
from plugins.spark import SparK
from safetensors.torch import save_file

from mimbench.api import patchify
from mimbench.contract import InputConfig, InputError
from mimbench.encoders.convnet import ConvNeXt, ResNet
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench.testing import check_method

FOLDER = Path(__file__).parent
GOLDEN = FOLDER.parent / "golden"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def vit(**options):
    config = ViT.Config(
        **{"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "position": "sincos"} | options
    )
    return ViT(config, image_size=32, in_channels=3)


def swin():
    config = Swin.Config(embed_dim=8, depths=(1, 1), num_heads=(1, 2), patch_size=2, window=4)
    return Swin(config, image_size=32, in_channels=3)


def resnet():
    return ResNet(ResNet.Config(block="basic", dims=(8, 16), depths=(1, 1)), image_size=32, in_channels=3)


def convnext():
    return ConvNeXt(ConvNeXt.Config(patch_size=4, dims=(8, 16), depths=(1, 1)), image_size=32, in_channels=3)


def spark(encoder=convnext, **options):
    return SparK(SparK.Config(**{"decoder_dim": 16} | options), encoder())


def mixmim(encoder=vit, **options):
    sizes = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
    return MixMIM(MixMIM.Config(**sizes | options), encoder())


def teacher_file(folder):
    torch.manual_seed(0)
    teacher = timm.create_model("vit_tiny_patch16_224", img_size=28, patch_size=4, in_chans=1, num_classes=0)
    path = folder / "teacher.safetensors"
    save_file(teacher.state_dict(), path)
    return path


RUNS = {
    "spark": ["encoder.name=convnext", "method.decoder_dim=16"],
    "mixmim": ["method.decoder_dim=16", "method.decoder_depth=1", "method.decoder_heads=2"],
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
    "spark": (SparK, {"decoder_dim": 16}, None),
    "mixmim-vit": (MixMIM, {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}, "vit"),
    "mixmim-swin": (MixMIM, {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}, "swin"),
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


BUILDS = {
    "spark-convnext": spark,
    "spark-resnet": lambda: spark(resnet),
    "mixmim-vit": mixmim,
    "mixmim-swin": lambda: mixmim(swin),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_it_learns_one_batch_and_reaches_every_parameter(build):
    torch.manual_seed(0)
    method = build().train()
    images = F.interpolate(torch.randn(4, 3, 5, 5, generator=seeded()), 32, mode="bicubic")
    mask = method.sample_mask(4, seeded())
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = method(images, mask).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("build", [spark, lambda: spark(resnet)], ids=["convnext", "resnet"])
def test_spark_predicts_from_visible_pixels(build):
    method = build().eval()
    images, mask = torch.randn(2, 3, 32, 32, generator=seeded()), method.sample_mask(2, seeded())
    hidden = mask.repeat_interleave(32 // mask.shape[1], 1).repeat_interleave(32 // mask.shape[2], 2).unsqueeze(1)
    with torch.no_grad():
        expected = method.predict(images, mask)
        assert torch.equal(method.predict(torch.where(hidden, 9.0, images), mask), expected)
        assert not torch.allclose(method.predict(torch.where(hidden, images, 9.0), mask), expected)


SPARK_NAMES = {
    "sparse_encoder.sp_cnn": "encoder.body",
    "dense_decoder.dec": "blocks",
    "dense_decoder.proj": "pixels",
    "densify_norms": "norms",
    "densify_projs": "project",
    "mask_tokens": "tokens",
}


def test_spark_is_the_official_method():
    """keyu-tian/SparK@a63e386f with a ResNet, its weights, images and mask: loss and gradient in float64."""
    golden = dict(np.load(GOLDEN / "spark_resnet_convnext.npz"))
    weights = {}
    for key, value in golden.items():
        if key.startswith(("resnet/param/", "resnet-method/param/")):
            name = key.split("param/")[1]
            name = name if "method" in key else f"sparse_encoder.sp_cnn.{name}"
            (start,) = (start for start in SPARK_NAMES if name.startswith(start))
            weights[name.replace(start, SPARK_NAMES[start])] = torch.from_numpy(value)
    encoder = ResNet(ResNet.Config(dims=(4, 8, 16, 32), depths=(1, 2, 1, 1)), image_size=96, in_channels=3)
    method = SparK(SparK.Config(decoder_dim=64), encoder)
    method.load_state_dict(weights)
    method.double().train()
    images = torch.from_numpy(golden["resnet/input/image"]).double()
    loss = method(images, torch.from_numpy(golden["resnet/input/mask"]).bool()).loss
    loss.backward()
    gradient = torch.stack([parameter.grad.norm() for parameter in method.parameters()]).norm()
    assert loss.item() == pytest.approx(float(golden["resnet-method/out/loss_f64"]), rel=1e-8)
    assert gradient.item() == pytest.approx(float(golden["resnet-method/grad_norm_f64"]), rel=1e-8)


def test_mixmim_reconstructs_each_patch_of_a_pair_once():
    """A prediction equal to one image where it is masked, and to its partner elsewhere, has no error."""
    method = mixmim()
    images, mask = torch.randn(2, 3, 32, 32, generator=seeded()), method.sample_mask(2, seeded())
    target = method.target(images)
    hidden = torch.stack((mask, ~mask), 1).unsqueeze(-1)
    assert method.loss(torch.where(hidden, target, 7.0), target, mask).item() == 0
    assert method.loss(torch.where(hidden, 7.0, target), target, mask).item() > 1


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


@pytest.mark.parametrize(("name", "most"), [("spark", 80)])
def test_it_is_short(name, most):
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= most
