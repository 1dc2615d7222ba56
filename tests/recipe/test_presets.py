"""Every preset resolves, and those of ImageNet have the values of the official configs, each with its source."""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib.resources import files

import pytest
import torch

from mimbench.optim import Schedule
from mimbench.recipe import document as doc
from mimbench.recipe.resolve import Recipe, resolve

IMAGENET = [name for name in doc.preset_names() if name.startswith("imagenet-")]
IMAGES = 1_281_167
"""Training images of ImageNet-1k."""

AUGMENTATION = {
    "input.crop_ratio": [3 / 4, 4 / 3],
    "input.flip": 0.5,
    "input.mean": [0.485, 0.456, 0.406],
    "input.std": [0.229, 0.224, 0.225],
    "input.eval_interpolation": "bicubic",
    "pretrain.accumulate": 1,
    "pretrain.optimizer": "adamw",
    "pretrain.eps": 1e-8,
    "pretrain.weight_decay": 0.05,
}
SIMMIM = AUGMENTATION | {
    "input.crop_scale": [0.67, 1.0],
    "input.color_jitter": 0.0,
    "input.interpolation": "bilinear",
    "method.masking": "random",
    "method.mask_patch_size": 32,
    "method.mask_ratio": 0.6,
    "method.head": "linear",
    "method.target": "pixels",
    "method.loss": "l1",
    "method.loss_area": "hidden",
    "pretrain.batch_size": 2048,
    "pretrain.lr_divisor": 512,
    "pretrain.betas": [0.9, 0.999],
    "pretrain.clip_grad": 5.0,
    "pretrain.schedule.convention": "simmim",
    "pretrain.schedule.warmup_epochs": 10,
}
SIMMIM_800 = SIMMIM | {
    "pretrain.epochs": 800,
    "pretrain.base_lr": 1e-4,
    "pretrain.schedule.kind": "multistep",
    "pretrain.schedule.milestones": [700],
    "pretrain.schedule.gamma": 0.1,
    "pretrain.schedule.warmup_lr": 5e-7,
}
SIMMIM_VIT = SIMMIM_800 | {
    "input.image_size": 224,
    "encoder.position": "relative",
    "encoder.layer_scale": 0.1,
    "encoder.drop_path": 0.1,
}
SWIN_B = {
    "input.image_size": 192,
    "encoder.name": "swin",
    "encoder.patch_size": 4,
    "encoder.embed_dim": 128,
    "encoder.depths": [2, 2, 18, 2],
    "encoder.num_heads": [4, 8, 16, 32],
    "encoder.window": 6,
    "encoder.drop_path": 0.0,
}
MAE = AUGMENTATION | {
    "input.image_size": 224,
    "input.crop_scale": [0.2, 1.0],
    "input.color_jitter": 0.0,
    "input.interpolation": "bicubic",
    "encoder.position": "sincos",
    "encoder.layer_scale": None,
    "encoder.drop_path": 0.0,
    "method.mask": "random",
    "method.mask_ratio": 0.75,
    "method.norm_pixels": True,
    "method.decoder_dim": 512,
    "method.decoder_depth": 8,
    "method.decoder_heads": 16,
    "pretrain.epochs": 800,
    "pretrain.batch_size": 4096,
    "pretrain.base_lr": 1.5e-4,
    "pretrain.lr_divisor": 256,
    "pretrain.betas": [0.9, 0.95],
    "pretrain.clip_grad": None,
    "pretrain.schedule.convention": "mae",
    "pretrain.schedule.kind": "cosine",
    "pretrain.schedule.warmup_epochs": 40,
    "pretrain.schedule.min_lr": 0.0,
}
BEIT = AUGMENTATION | {
    "input.image_size": 224,
    "input.crop_scale": [0.08, 1.0],
    "input.color_jitter": 0.4,
    "input.interpolation": "bicubic",
    "encoder.position": "relative",
    "encoder.layer_scale": 0.1,
    "encoder.drop_path": 0.1,
    "method.hidden_patches": 75,
    "method.min_block": 16,
    "method.tokenizer": "dalle",
    "method.dalle.vocabulary": 8192,
    "pretrain.epochs": 800,
    "pretrain.batch_size": 2048,
    "pretrain.base_lr": 1.5e-3,
    "pretrain.lr_divisor": None,
    "pretrain.betas": [0.9, 0.999],
    "pretrain.clip_grad": 3.0,
    "pretrain.schedule.convention": "beit",
    "pretrain.schedule.kind": "cosine",
    "pretrain.schedule.warmup_epochs": 10,
    "pretrain.schedule.warmup_lr": 1e-6,
    "pretrain.schedule.min_lr": 1e-5,
}
BASE = {"encoder.patch_size": 16, "encoder.embed_dim": 768, "encoder.depth": 12, "encoder.num_heads": 12}
LARGE = {"encoder.patch_size": 16, "encoder.embed_dim": 1024, "encoder.depth": 24, "encoder.num_heads": 16}
OFFICIAL = {
    ("imagenet-vit-base", "simmim"): BASE | SIMMIM_VIT,
    ("imagenet-vit-base", "mae"): BASE | MAE,
    ("imagenet-vit-base", "beit"): BASE | BEIT,
    ("imagenet-vit-large", "simmim"): LARGE | SIMMIM_VIT,
    ("imagenet-vit-large", "mae"): LARGE | MAE,
    ("imagenet-vit-large", "beit"): LARGE | BEIT | {"encoder.layer_scale": 1e-5, "pretrain.clip_grad": 1.0},
    ("imagenet-swin-base-800ep", "simmim"): SWIN_B | SIMMIM_800,
    ("imagenet-swin-base", "simmim"): SWIN_B
    | SIMMIM
    | {
        "pretrain.epochs": 100,
        "pretrain.base_lr": 2e-4,
        "pretrain.schedule.kind": "cosine",
        "pretrain.schedule.warmup_lr": 1e-6,
        "pretrain.schedule.min_lr": 1e-5,
    },
}

STEPS = IMAGES // 2048
MULTISTEP = {
    0: 2e-6,
    1: 2e-6,
    5 * STEPS + 1: (2e-6 + 4e-4) / 2,
    10 * STEPS + 1: 4e-4,
    700 * STEPS: 4e-4,
    700 * STEPS + 1: 4e-5,
    -1: 4e-5,
}
RATES = {
    ("imagenet-vit-base", "simmim"): MULTISTEP,
    ("imagenet-swin-base-800ep", "simmim"): MULTISTEP,
    ("imagenet-swin-base", "simmim"): {
        0: 4e-6,
        1: 4e-6,
        5 * STEPS + 1: (4e-6 + 8e-4) / 2,
        10 * STEPS + 1: 4e-5 + 0.5 * 7.6e-4 * (1 + math.cos(math.pi / 10)),
        50 * STEPS + 1: (4e-5 + 8e-4) / 2,
    },
    ("imagenet-vit-base", "mae"): {
        0: 0.0,
        20 * (IMAGES // 4096): 1.2e-3,
        40 * (IMAGES // 4096): 2.4e-3,
        420 * (IMAGES // 4096): 1.2e-3,
    },
    ("imagenet-vit-base", "beit"): {
        0: 0.0,
        10 * STEPS - 1: 1.5e-3,
        10 * STEPS: 1.5e-3,
        405 * STEPS: (1e-5 + 1.5e-3) / 2,
    },
}
"""What each optimizer step uses, on one accelerator or many, with batches that are cut whole from ImageNet-1k."""

RATES |= {("imagenet-vit-large", method): RATES["imagenet-vit-base", method] for method in ("simmim", "mae", "beit")}
PEAKS = {
    ("imagenet-vit-base", "simmim"): 4e-4,
    ("imagenet-vit-base", "mae"): 2.4e-3,
    ("imagenet-vit-base", "beit"): 1.5e-3,
    ("imagenet-swin-base", "simmim"): 8e-4,
    ("imagenet-swin-base-800ep", "simmim"): 4e-4,
}

HIDDEN = {
    ("imagenet-vit-base", "simmim"): (7, 30, 30),
    ("imagenet-swin-base", "simmim"): (6, 22, 22),
    ("imagenet-vit-base", "mae"): (14, 147, 147),
    ("imagenet-vit-base", "beit"): (14, 60, 75),
}
"""Cells along a side; least and most that are hidden."""


@cache
def written(preset: str) -> dict:
    return tomllib.loads(files("mimbench.recipe.presets").joinpath(f"{preset}.toml").read_text(encoding="utf-8"))


def pairs() -> list[tuple[str, str]]:
    """Every preset with every method that it has an overlay for, and with two that need none."""
    return [
        (preset, method)
        for preset in doc.preset_names()
        for method in sorted({*doc.read(preset).get("methods", {}), "simmim", "random-init"})
    ]


def of(table: dict) -> list:
    return [pytest.param(*pair, id="-".join(pair)) for pair in table]


def resolved(preset: str, method: str) -> Recipe:
    return resolve(preset, doc.read(preset), method, {}, None)


def value(recipe: Recipe, path: str):
    found = recipe.as_tables()
    for part in path.split("."):
        found = found[part]
    return found


@pytest.mark.parametrize(("preset", "method"), pairs())
def test_every_preset_resolves_and_its_schedule_holds_together(preset, method):
    recipe = resolved(preset, method)
    assert recipe.method == method
    assert Schedule(recipe.pretrain, steps_per_epoch=10).steps == 10 * recipe.pretrain.epochs


def test_the_presets_that_the_documents_name_are_there():
    assert {"mnist5k-vit-tiny", "smoke", "imagenet-vit-base"} <= set(doc.preset_names())
    assert ("imagenet-vit-base", "simmim") in pairs()
    assert all(doc.read(name).get("summary") for name in doc.preset_names())


@pytest.mark.parametrize(("preset", "method"), of(OFFICIAL))
def test_resolved_values_are_the_official_ones(preset, method):
    recipe = resolved(preset, method)
    expected = OFFICIAL[preset, method]
    assert {path: value(recipe, path) for path in expected} == expected


@pytest.mark.parametrize(("preset", "method"), of(OFFICIAL))
def test_official_values_do_not_rest_on_defaults(preset, method):
    """A changed default of a Config must not change an official recipe."""
    recipe = resolved(preset, method)
    stated = {path for path, expected in OFFICIAL[preset, method].items() if expected is not None}
    assert stated - {"pretrain.accumulate"} <= set(recipe.sources)


@pytest.mark.parametrize(("preset", "method"), of(RATES))
def test_effective_rates_are_the_official_ones(preset, method):
    train = resolved(preset, method).pretrain
    schedule = Schedule(train, IMAGES // train.batch_size)
    for step, rate in RATES[preset, method].items():
        assert schedule.lr(step % schedule.steps) == pytest.approx(rate, rel=1e-9), step


@pytest.mark.parametrize(("preset", "method"), of(PEAKS))
def test_the_peak_rate_is_scaled_by_the_recipes_own_divisor(preset, method):
    assert resolved(preset, method).pretrain.lr == pytest.approx(PEAKS[preset, method], rel=1e-12)


@pytest.mark.parametrize(("preset", "method"), of(HIDDEN))
def test_masks_hide_the_official_number_of_cells(preset, method):
    settings = {"method.tokenizer": "kmeans"} if method == "beit" else {}  # the official one wants a file of weights
    recipe = resolve(preset, doc.read(preset), method, settings, None)
    with torch.device("meta"):
        encoder = recipe.encoder_class()(recipe.encoder_config, image_size=recipe.input.image_size, in_channels=3)
        model = recipe.method_class()(recipe.method_config, encoder)
    mask = model.sample_mask(64, torch.Generator().manual_seed(0))
    side, low, high = HIDDEN[preset, method]
    assert mask.shape == (64, side, side)
    counts = mask.flatten(1).sum(1)
    assert low <= counts.min()
    assert counts.max() == high


@pytest.mark.parametrize("preset", IMAGENET)
def test_every_value_has_a_source_and_every_source_a_value(preset):
    document = written(preset)
    for owner, tables in [("", document), *document.get("methods", {}).items()]:
        stated = [path for path, _ in doc.values({key: tables[key] for key in doc.SECTIONS[:-1] if key in tables})]
        given = dict(doc.values(tables["sources"]))
        attributed = doc.read(preset)["methods"][owner]["sources"] if owner else doc.read(preset)["sources"]
        assert [path for path in stated if not attributed[path]] == [], owner
        unused = [path for path in given if not any(f"{other}.".startswith(f"{path}.") for other in stated)]
        assert set(unused) <= ABSENT, (owner, unused)
        assert all("@" in text or "arXiv:" in text or text.startswith("mimbench") for text in given.values())


ABSENT = {"encoders.vit.layer_scale", "pretrain.clip_grad", "pretrain.lr_divisor"}
"""Keys that an official recipe leaves out on purpose, with the source that says so."""
