"""The fine-tuning and probing parts of the ImageNet presets have the values of the official recipes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mimbench.contract import ArraySplit
from mimbench.optim import Schedule
from mimbench.recipe import document as recipe_document
from mimbench.recipe.resolve import Recipe, resolve
from mimbench.recipe.show import describe
from mimbench_tasks.segmentation.config import pyramid_strides

IMAGES = 1_281_167
"""Training images of ImageNet-1k."""

TUNED = {
    "pooling": "mean",
    "drop_path": 0.1,
    "crop_scale": [0.08, 1.0],
    "crop_ratio": [3 / 4, 4 / 3],
    "flip": 0.5,
    "interpolation": "bicubic",
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "erase_prob": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "mixup_prob": 1.0,
    "switch_prob": 0.5,
    "smoothing": 0.1,
    "ema_decay": None,
    "image_size": 224,
    "train.epochs": 100,
    "train.accumulate": 1,
    "train.optimizer": "adamw",
    "train.betas": [0.9, 0.999],
    "train.eps": 1e-8,
    "train.weight_decay": 0.05,
    "train.layer_decay": 0.65,
    "train.schedule.kind": "cosine",
    "train.schedule.warmup_epochs": 20,
}
TUNED_SIMMIM = TUNED | {
    "mix_group": 128,
    "train.batch_size": 2048,
    "train.base_lr": 1.25e-3,
    "train.lr_divisor": 512,
    "train.clip_grad": 5.0,
    "train.schedule.convention": "simmim",
    "train.schedule.warmup_lr": 2.5e-7,
    "train.schedule.min_lr": 2.5e-7,
}
TUNED_SWIN = TUNED_SIMMIM | {"norm": "encoder", "head_std": 0.02, "no_decay": ["relative_position_bias_table"]}
TUNED_MAE = TUNED | {
    "mix_group": 32,
    "norm": "fresh",
    "head_std": 2e-5,
    "position": "learned",
    "train.batch_size": 1024,
    "train.base_lr": 5e-4,
    "train.lr_divisor": 256,
    "train.clip_grad": None,
    "train.schedule.convention": "mae",
    "train.schedule.warmup_epochs": 5,
    "train.schedule.min_lr": 1e-6,
}
TUNED_BEIT = TUNED | {
    "mix_group": 128,
    "norm": "fresh",
    "head_std": 2e-5,
    "position": "relative-per-block",
    "train.batch_size": 1024,
    "train.base_lr": 4e-3,
    "train.lr_divisor": None,
    "train.clip_grad": None,
    "train.schedule.convention": "beit",
    "train.schedule.min_lr": 1e-6,
}
TUNED_DATA2VEC = TUNED_BEIT | {
    "attention_dropout": 0.0,
    "position": None,
    "drop_path": 0.2,
    "train.schedule.warmup_epochs": 10,
}
TUNED_MASKFEAT = TUNED | {
    "mix_group": 64,
    "norm": "fresh",
    "head_std": 2e-5,
    "position": None,
    "decay_tokens": True,
    "train.clip_grad": None,
    "train.precision": "fp32",
    "train.schedule.convention": "plain",
    "train.schedule.warmup_lr": 1e-8,
    "train.schedule.min_lr": 1e-6,
}
TUNED_LARGE = {"drop_path": 0.2, "train.epochs": 50, "train.base_lr": 1e-3, "train.layer_decay": 0.75}
TUNED_SPARK = TUNED | {
    "rand_augment": "trivial",
    "eval_resize": 235,
    "ema_decay": 0.9999,
    "train.lr_divisor": 256,
    "train.precision": "fp32",
    "train.layer_decay": 0.7,
    "train.clip_grad": None,
    "train.schedule.convention": "spark",
}
TUNED_CAE = TUNED_BEIT | {
    "norm": "encoder-after-pooling",
    "position": "sincos-rows-first-and-relative",
    "train.batch_size": 4096,
    "train.schedule.warmup_epochs": 5,
}
TUNED_HPM = TUNED_MAE | {"train.layer_decay": 0.8}
TUNED_LOCALMIM = TUNED_MAE | {"train.lr_divisor": None}
TUNED_FASTMIM = TUNED_MAE | {"mix_group": 128}
TUNED_IBOT = TUNED_BEIT | {"pooling": "token", "norm": "encoder", "position": "learned"}
TUNED_IJEPA = TUNED | {
    "norm": "fresh",
    "position": None,
    "image_size": None,
    "drop_path": 0.25,
    "train.epochs": 50,
    "train.batch_size": 528,
    "train.base_lr": 1e-4,
    "train.weight_decay": 0.04,
    "train.layer_decay": 0.75,
    "train.schedule.convention": "mae",
    "train.schedule.warmup_epochs": 5,
}
FINETUNE = {
    ("imagenet-vit-base", "simmim"): TUNED_SIMMIM
    | {"norm": "fresh", "head_std": 2e-5, "position": "relative-per-block", "no_decay": []},
    ("imagenet-vit-base", "mae"): TUNED_MAE,
    ("imagenet-vit-base", "beit"): TUNED_BEIT,
    ("imagenet-vit-base", "beitv2"): TUNED_BEIT | {"drop_path": 0.2, "train.base_lr": 5e-4, "train.layer_decay": 0.6},
    ("imagenet-vit-base", "data2vec"): TUNED_DATA2VEC | {"train.weight_decay": 0.0},
    ("imagenet-vit-base", "maskfeat"): TUNED_MASKFEAT | {"train.batch_size": 512, "train.base_lr": 2e-3},
    ("imagenet-vit-base-fastmim", "maskfeat"): TUNED_FASTMIM | {"train.base_lr": 6e-4, "train.layer_decay": 0.7},
    ("imagenet-swin-base-fastmim", "maskfeat"): TUNED_FASTMIM
    | {
        "norm": "encoder",
        "position": None,
        "window": 7,
        "no_decay": [],
        "train.base_lr": 1e-3,
        "train.layer_decay": 0.8,
    },
    ("imagenet-convnext-base", "spark"): TUNED_SPARK
    | {
        "norm": "fresh",
        "head_std": 0.02,
        "repeats": 3,
        "drop_path": 0.4,
        "layer_groups": [3] * 12,
        "mix_group": 512,
        "loss": "cross-entropy",
        "train.epochs": 400,
        "train.batch_size": 4096,
        "train.weight_decay": 0.01,
    },
    ("imagenet-resnet-50", "spark"): TUNED_SPARK
    | {
        "norm": "encoder",
        "drop_path": 0.05,
        "layer_groups": [3, 2, 2, 3, 3, 3],
        "mixup": 0.1,
        "mix_group": 256,
        "loss": "binary",
        "train.epochs": 300,
        "train.batch_size": 2048,
        "train.optimizer": "lamb",
        "train.eps": 1e-6,
        "train.weight_decay": 0.02,
        "train.schedule.warmup_epochs": 5,
    },
    ("imagenet-convnext-base", "fcmae"): TUNED_MAE
    | {
        "position": None,
        "layer_groups": [3] * 12,
        "ema_decay": 0.9999,
        "train.base_lr": 6.25e-4,
        "train.layer_decay": 0.6,
        "train.schedule.warmup_epochs": 20,
    },
    ("imagenet-vit-base", "cae"): TUNED_CAE | {"train.base_lr": 8e-3},
    ("imagenet-vit-base", "hpm"): TUNED_HPM | {"mix_group": 48, "train.batch_size": 384},
    ("imagenet-vit-base", "localmim"): TUNED_LOCALMIM
    | {
        "mix_group": 128,
        "train.base_lr": 2e-3,
        "train.schedule.warmup_epochs": 20,
        "train.schedule.min_lr": 1e-5,
    },
    ("imagenet-vit-base", "ijepa"): TUNED_IJEPA,
    ("imagenet-vit-huge", "ijepa"): TUNED_IJEPA,
    ("imagenet-vit-base", "ibot"): TUNED_IBOT,
    ("imagenet-vit-small", "ibot"): TUNED_IBOT | {"train.epochs": 200, "train.layer_decay": 0.75},
    ("imagenet-vit-large", "cae"): TUNED_CAE | TUNED_LARGE | {"mix_group": 64, "train.base_lr": 2e-3},
    ("imagenet-vit-large", "hpm"): TUNED_HPM | {"mix_group": 64, "train.batch_size": 512, "train.epochs": 50},
    ("imagenet-vit-large", "localmim"): TUNED_LOCALMIM | TUNED_LARGE | {"mix_group": 64, "train.base_lr": 3e-3},
    ("imagenet-vit-large", "data2vec"): TUNED_DATA2VEC
    | {
        "mix_group": 64,
        "drop_path": 0.25,
        "train.epochs": 50,
        "train.base_lr": 5e-3,
        "train.schedule.warmup_epochs": 5,
    },
    ("imagenet-vit-large", "maskfeat"): TUNED_MASKFEAT
    | TUNED_LARGE
    | {"mix_group": 32, "drop_path": 0.1, "train.batch_size": 256, "train.schedule.warmup_epochs": 5},
    ("imagenet-vit-large", "beitv2"): TUNED_BEIT
    | TUNED_LARGE
    | {"mix_group": 64, "train.base_lr": 2e-4, "train.layer_decay": 0.8, "train.schedule.warmup_epochs": 5},
    ("imagenet-vit-large", "mae"): TUNED_MAE | TUNED_LARGE,
    ("imagenet-vit-large", "beit"): TUNED_BEIT | TUNED_LARGE | {"mix_group": 64, "train.schedule.warmup_epochs": 5},
    ("imagenet-swin-base", "simmim"): TUNED_SWIN | {"image_size": 192, "window": 6, "train.layer_decay": 0.9},
    ("imagenet-swin-base-800ep", "simmim"): TUNED_SWIN | {"window": 7, "train.layer_decay": 0.8},
    ("imagenet-swin-base-224", "greenmim"): TUNED_SWIN
    | {"window": 7, "mix_group": 48, "train.batch_size": 768, "train.layer_decay": 0.9},
    ("imagenet-swin-base-224", "mixmim"): TUNED_MAE
    | {
        "norm": "encoder",
        "position": None,
        "mix_group": 128,
        "no_decay": ["relative_position_bias_table"],
        "train.layer_decay": 0.7,
    },
}
"""The fine-tuning part: options of the task, by their paths."""

FINETUNE_RATES = {
    ("imagenet-vit-base", "simmim"): (5e-3, {0: 1e-6, 1: 1e-6, -1: 1e-6}),
    ("imagenet-vit-base", "mae"): (2e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-base", "beit"): (4e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-base", "beitv2"): (5e-4, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-base", "data2vec"): (4e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-base", "maskfeat"): (2e-3, {0: 1e-8, -1: 1e-6}),
    ("imagenet-vit-base-fastmim", "maskfeat"): (2.4e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-swin-base-fastmim", "maskfeat"): (4e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-convnext-base", "spark"): (1.6e-3, {0: 8e-6, -1: 1.6e-6}),
    ("imagenet-resnet-50", "spark"): (1.6e-2, {0: 8e-5, -1: 1.6e-5}),
    ("imagenet-convnext-base", "fcmae"): (2.5e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-base", "cae"): (8e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-base", "hpm"): (7.5e-4, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-base", "localmim"): (2e-3, {0: 0.0, -1: 1e-5}),
    ("imagenet-vit-base", "ijepa"): (2.0625e-4, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-base", "ibot"): (4e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-small", "ibot"): (4e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-large", "cae"): (2e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-large", "hpm"): (1e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-large", "localmim"): (3e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-large", "beitv2"): (2e-4, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-large", "data2vec"): (5e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-large", "maskfeat"): (1e-3, {0: 1e-8, -1: 1e-6}),
    ("imagenet-vit-large", "mae"): (4e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-vit-large", "beit"): (1e-3, {0: 0.0, -1: 1e-6}),
    ("imagenet-swin-base", "simmim"): (5e-3, {0: 1e-6, -1: 1e-6}),
    ("imagenet-swin-base-800ep", "simmim"): (5e-3, {0: 1e-6, -1: 1e-6}),
}
"""Peak rate after scaling, and what single steps use; the last one to within a millionth of the peak."""

PROBES = {
    ("imagenet-vit-base", "simmim"): {"protocol": "simmim", "layers": "all", "pooling": "mean"},
    ("imagenet-vit-base", "mae"): {
        "protocol": "mae",
        "pooling": "token",
        "train.epochs": 90,
        "train.optimizer": "lars",
    },
    ("imagenet-vit-large", "mae"): {"protocol": "mae", "train.epochs": 50, "train.batch_size": 16384},
    ("imagenet-swin-base", "simmim"): {"protocol": "simmim", "layers": "all"},
}


def cases_of(table: dict) -> list:
    return [pytest.param(*pair, id="-".join(pair)) for pair in table]


def resolved(preset: str, method: str) -> Recipe:
    return resolve(preset, recipe_document.read(preset), method, {}, None)


def options(preset: str, method: str, task: str) -> dict:
    return resolved(preset, method).task(task).config.model_dump(mode="json")


def at(tables: dict, path: str):
    for part in path.split("."):
        tables = tables[part]
    return tables


@pytest.mark.parametrize(("preset", "method"), cases_of(FINETUNE))
def test_fine_tuning_is_the_official_one(preset, method):
    config, expected = options(preset, method, "finetune"), FINETUNE[preset, method]
    assert {path: at(config, path) for path in expected} == expected


@pytest.mark.parametrize(("preset", "method"), cases_of(FINETUNE))
def test_fine_tuning_is_shown_with_its_sources(preset, method):
    """A value of the official recipe never rests on a default."""
    expected = {path: value for path, value in FINETUNE[preset, method].items() if value not in (None, [])}
    text = describe(preset, method, {}).split("[tasks.finetune]")[1].split("[tasks.linear-probe]")[0]
    values = {line.partition(" = ")[0]: line for line in text.splitlines() if "  # " in line}
    for path in expected.keys() - {"train.accumulate"}:
        assert "@" in values[path.rpartition(".")[2]] or "arXiv:" in values[path.rpartition(".")[2]], path


@pytest.mark.parametrize(("preset", "method"), cases_of(FINETUNE_RATES))
def test_fine_tuning_rates_are_the_official_ones(preset, method):
    train = resolved(preset, method).task("finetune").config.train
    peak, rates = FINETUNE_RATES[preset, method]
    assert train.lr == pytest.approx(peak, rel=1e-12)
    schedule = Schedule(train, IMAGES // train.batch_size)
    for step, rate in rates.items():
        assert schedule.lr(step % schedule.steps) == pytest.approx(rate, rel=1e-9, abs=peak * 1e-6), step
    # SimMIM's layer decay leaves the ends of its schedule alone; the others' scales all of it.
    start = schedule.lr(1)
    assert schedule.lr(1, 0.01) == pytest.approx(start if method == "simmim" else start / 100)


@pytest.mark.parametrize(("preset", "method"), cases_of(PROBES))
def test_the_probe_is_the_official_one(preset, method):
    config, expected = options(preset, method, "linear-probe"), PROBES[preset, method]
    assert {path: at(config, path) for path in expected} == expected


@pytest.mark.parametrize(("preset", "method"), cases_of(FINETUNE))
def test_fine_tuning_fits_the_recipes_encoder(preset, method):
    recipe = resolved(preset, method)
    images, labels = torch.empty(4096, 3, 8, 8, dtype=torch.uint8, device="meta"), torch.arange(4096) % 1000
    split = ArraySplit(images, labels, tuple(map(str, range(1000))))
    with torch.device("meta"):
        encoder = recipe.encoder_class()(recipe.encoder_config, image_size=recipe.input.image_size, in_channels=3)
    recipe.task("finetune").check(encoder, SimpleNamespace(channels=3, split=lambda name: split))


@pytest.mark.parametrize(
    ("encoder", "strides"),
    [("vit", (2, 4, 8)), ("swin", None), ("convnext", None), ("resnet", None)],
)
def test_the_default_recipe_segments_with_every_encoder(encoder, strides):
    recipe = resolve(
        "mnist5k-vit-tiny", recipe_document.read("mnist5k-vit-tiny"), "random-init", {"encoder.name": encoder}, None
    )
    with torch.device("meta"):
        built = recipe.encoder_class()(recipe.encoder_config, image_size=recipe.input.image_size, in_channels=1)
    assert pyramid_strides(recipe.task("segmentation").config, built) == (strides or built.pyramid_strides)


@pytest.mark.parametrize("task", ["linear-probe", "attentive-probe"])
@pytest.mark.parametrize("preset", ["moving-digits-vit-tiny", "ssv2-vit-base"])
def test_probes_do_not_mirror_clips_whose_classes_are_directions(preset, task):
    recipe = resolved(preset, "videomae")
    augmentation = recipe.task(task).config.augmentation
    assert (augmentation.applied(recipe.input).flip, recipe.input.flip) == (0.0, 0.0)
    assert recipe.input.frames > 1
