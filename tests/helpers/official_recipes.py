"""The official recipes of ImageNet-1k as tables: what the presets must resolve to."""

from __future__ import annotations

import math

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
MASKFEAT = AUGMENTATION | {
    "input.image_size": 224,
    "input.crop_scale": [0.5, 1.0],
    "input.color_jitter": 0.0,
    "input.interpolation": "bicubic",
    "encoder.position": "learned",
    "encoder.layer_scale": None,
    "encoder.drop_path": 0.0,
    "method.bins": 9,
    "method.cell_size": 8,
    "method.colour": "channels",
    "method.norm": "l2",
    "method.mask": "block",
    "method.mask_ratio": 0.4,
    "method.min_block": 15,
    "pretrain.epochs": 300,
    "pretrain.batch_size": 2048,
    "pretrain.base_lr": 2e-4,
    "pretrain.lr_divisor": 256,
    "pretrain.betas": [0.9, 0.999],
    "pretrain.clip_grad": 0.02,
    "pretrain.precision": "fp32",
    "pretrain.schedule.convention": "plain",
    "pretrain.schedule.kind": "cosine",
    "pretrain.schedule.warmup_epochs": 30,
}
DATA2VEC = AUGMENTATION | {
    "input.image_size": 224,
    "input.crop_scale": [0.08, 1.0],
    "input.color_jitter": 0.4,
    "input.interpolation": "bicubic",
    "encoder.position": "relative",
    "encoder.layer_scale": 1e-4,
    "encoder.drop_path": 0.25,
    "encoder.attention_dropout": 0.05,
    "method.hidden_patches": 120,
    "method.min_block": 16,
    "method.target_layers": 6,
    "method.norm_layers": True,
    "method.norm_target": True,
    "method.beta": 2.0,
    "method.tau_end": 0.9998,
    "method.tau_share": 0.0,
    "method.export": "student",
    "pretrain.epochs": 800,
    "pretrain.batch_size": 2048,
    "pretrain.base_lr": 2e-3,
    "pretrain.lr_divisor": None,
    "pretrain.betas": [0.9, 0.999],
    "pretrain.clip_grad": 3.0,
    "pretrain.schedule.convention": "beit",
    "pretrain.schedule.kind": "cosine",
    "pretrain.schedule.warmup_epochs": 10,
    "pretrain.schedule.min_lr": 1e-5,
}
DATA2VEC_LARGE = DATA2VEC | {
    "encoder.layer_scale": 1e-5,
    "encoder.drop_path": 0.2,
    "encoder.attention_dropout": 0.15,
    "pretrain.batch_size": 4096,
    "pretrain.base_lr": 1e-3,
    "pretrain.schedule.warmup_epochs": 80,
}
HPM = MAE | {
    "method.norm_pixels": False,
    "method.guided_share": 0.5,
    "method.growth_steps": 200,
    "method.tau_start": 0.999,
    "method.tau_end": 0.9999,
    "method.tau_share": 0.5,
    "pretrain.epochs": 200,
    "pretrain.batch_size": 2048,
}
del HPM["method.mask"]
LOCALMIM = AUGMENTATION | {
    "input.image_size": 224,
    "input.crop_scale": [0.2, 1.0],
    "input.color_jitter": 0.0,
    "input.interpolation": "bicubic",
    "encoder.position": "sincos",
    "encoder.layer_scale": None,
    "encoder.drop_path": 0.0,
    "method.mask_ratio": 0.75,
    "method.layers": [1, 3, -3, -1],
    "method.cells": [4, 8, 16, 32],
    "method.bins": 9,
    "method.random_bias": False,
    "method.decoder_dim": 256,
    "method.decoder_depth": 1,
    "method.decoder_heads": 8,
    "pretrain.epochs": 1600,
    "pretrain.batch_size": 2048,
    "pretrain.base_lr": 2e-4,
    "pretrain.lr_divisor": 256,
    "pretrain.betas": [0.9, 0.95],
    "pretrain.clip_grad": None,
    "pretrain.schedule.convention": "mae",
    "pretrain.schedule.kind": "cosine",
    "pretrain.schedule.warmup_epochs": 40,
    "pretrain.schedule.min_lr": 1e-6,
}
CAE = BEIT | {
    "input.color_jitter": 0.0,
    "encoder.position": "sincos-rows-first",
    "method.hidden_patches": 98,
    "method.regressor_depth": 4,
    "method.decoder_depth": 4,
    "method.decoder_dim": 768,
    "method.decoder_heads": 12,
    "method.decoder_layer_scale": 0.1,
    "method.decoder_drop_path": 0.1,
    "method.align_weight": 2.0,
    "method.momentum": 0.0,
    "pretrain.schedule.warmup_epochs": 20,
}
BASE = {"encoder.patch_size": 16, "encoder.embed_dim": 768, "encoder.depth": 12, "encoder.num_heads": 12}
LARGE = {"encoder.patch_size": 16, "encoder.embed_dim": 1024, "encoder.depth": 24, "encoder.num_heads": 16}
OFFICIAL = {
    ("imagenet-vit-base", "simmim"): BASE | SIMMIM_VIT,
    ("imagenet-vit-base", "mae"): BASE | MAE,
    ("imagenet-vit-base", "beit"): BASE | BEIT,
    ("imagenet-vit-base", "maskfeat"): BASE | MASKFEAT,
    ("imagenet-vit-base", "data2vec"): BASE | DATA2VEC,
    ("imagenet-vit-base", "hpm"): BASE | HPM,
    ("imagenet-vit-base", "cae"): BASE | CAE,
    ("imagenet-vit-base", "localmim"): BASE | LOCALMIM,
    ("imagenet-vit-large", "localmim"): LARGE | LOCALMIM | {"method.bins": 18, "method.random_bias": True},
    ("imagenet-vit-large", "maskfeat"): LARGE | MASKFEAT,
    ("imagenet-vit-large", "data2vec"): LARGE | DATA2VEC_LARGE,
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
    ("imagenet-vit-base", "maskfeat"): {
        0: 8e-6,
        15 * STEPS: (8e-6 + 1.6e-3) / 2,
        30 * STEPS: 1.6e-3,
        165 * STEPS: (8e-6 + 1.6e-3) / 2,
    },
    ("imagenet-vit-base", "data2vec"): {
        0: 0.0,
        10 * STEPS - 1: 2e-3,
        10 * STEPS: 2e-3,
        405 * STEPS: (1e-5 + 2e-3) / 2,
    },
    ("imagenet-vit-base", "localmim"): {0: 0.0, 20 * STEPS: 8e-4, 40 * STEPS: 1.6e-3, 820 * STEPS: (1e-6 + 1.6e-3) / 2},
    ("imagenet-vit-base", "cae"): {
        0: 0.0,
        20 * STEPS - 1: 1.5e-3,
        20 * STEPS: 1.5e-3,
        410 * STEPS: (1e-5 + 1.5e-3) / 2,
    },
    ("imagenet-vit-base", "hpm"): {0: 0.0, 20 * STEPS: 6e-4, 40 * STEPS: 1.2e-3, 120 * STEPS: 6e-4},
    ("imagenet-vit-large", "data2vec"): {
        0: 0.0,
        80 * (IMAGES // 4096) - 1: 1e-3,
        440 * (IMAGES // 4096): (1e-5 + 1e-3) / 2,
    },
}
"""What each optimizer step uses, on one accelerator or many, with batches that are cut whole from ImageNet-1k."""

RATES |= {
    ("imagenet-vit-large", method): RATES["imagenet-vit-base", method]
    for method in ("simmim", "mae", "beit", "maskfeat")
}
PEAKS = {
    ("imagenet-vit-base", "simmim"): 4e-4,
    ("imagenet-vit-base", "mae"): 2.4e-3,
    ("imagenet-vit-base", "beit"): 1.5e-3,
    ("imagenet-vit-base", "maskfeat"): 1.6e-3,
    ("imagenet-vit-base", "data2vec"): 2e-3,
    ("imagenet-vit-base", "hpm"): 1.2e-3,
    ("imagenet-vit-base", "cae"): 1.5e-3,
    ("imagenet-vit-base", "localmim"): 1.6e-3,
    ("imagenet-swin-base", "simmim"): 8e-4,
    ("imagenet-swin-base-800ep", "simmim"): 4e-4,
}

HIDDEN = {
    ("imagenet-vit-base", "simmim"): (7, 30, 30),
    ("imagenet-swin-base", "simmim"): (6, 22, 22),
    ("imagenet-vit-base", "mae"): (14, 147, 147),
    ("imagenet-vit-base", "hpm"): (14, 147, 147),
    ("imagenet-vit-base", "cae"): (14, 98, 98),
    ("imagenet-vit-base", "localmim"): (14, 147, 147),
    ("imagenet-vit-base", "beit"): (14, 60, 75),
    ("imagenet-vit-base", "maskfeat"): (14, 60, 78),
    ("imagenet-vit-base", "data2vec"): (14, 90, 120),
}
"""Cells along a side; least and most that are hidden."""
