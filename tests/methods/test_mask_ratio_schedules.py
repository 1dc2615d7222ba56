"""Mask ratios that change over the training, for every built-in method that has one."""

from __future__ import annotations

import pytest
import torch

from helpers.noting import INPUT, train
from helpers.small_encoders import encoder_for
from mimbench import registry
from mimbench.engine.pretrain import TrainableMethod
from mimbench.errors import InputError
from mimbench.masks import masked_count
from mimbench.parts.mask_ratio import MaskRatioConfig
from mimbench.recipe.show import describe

SMALL = {
    "simmim": {"mask_patch_size": 2},
    "mae": {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2, "min_block": 1},
    "maskfeat": {"cell_size": 1, "mask": "random"},
    "simmim-pixel": {},
    "spark": {"decoder_dim": 4},
    "fcmae": {"decoder_dim": 4, "init": "encoder"},
    "greenmim": {"decoder_dim": 8, "decoder_heads": 2},
    "mixmim": {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2},
    "hpm": {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2, "guided_share": 0.0},
    "data2vec2": {"masks": 1, "mask_block": 1, "target_layers": 1, "decoder_dim": 8, "decoder_groups": 2},
    "dbot": {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2},
    "pixio": {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2, "mask_block": 1},
    "capi": {"clusters": 4, "predictor_dim": 8, "predictor_depth": 1, "predictor_heads": 2, "predicted_share": 0.25},
    "localmim": {"layers": (-1,), "cells": (2,), "decoder_dim": 8, "decoder_heads": 2},
}
KINDS = [
    ("simmim", {}),
    ("simmim", {"masking": "block"}),
    ("simmim", {"masking": "square"}),
    ("mae", {}),
    ("mae", {"mask": "block"}),
    ("maskfeat", {}),
    ("maskfeat", {"mask": "block", "min_block": 1}),
    ("simmim-pixel", {}),
    ("spark", {}),
    ("fcmae", {}),
    ("greenmim", {}),
    ("mixmim", {}),
    ("hpm", {}),
    ("localmim", {}),
    ("data2vec2", {}),
    ("dbot", {}),
    ("pixio", {}),
    ("capi", {}),
]


def build(name, **options):
    torch.manual_seed(0)
    cls = registry.methods.load(name)
    return cls(cls.Config(**SMALL[name] | options), encoder_for(cls))


def train_and_count(folder, method, **options):
    """Masked fraction of the masks of each step of a training."""
    drawn, sample = [], type(method).sample_mask

    def noted(batch, generator):
        mask = sample(method, batch, generator)
        if batch > 1:  # MAE counts on a single mask
            drawn.append(float(method.masked_cells(mask).float().mean()))
        return mask

    method.sample_mask = noted
    report, _ = train(TrainableMethod(method, [INPUT], channels=1, batched=True), folder, base_lr=1e-3, **options)
    return drawn, report


def test_all_built_in_methods_with_a_mask_ratio_are_here():
    fixed = {"um-mae", "crossmae", "videomae", "mae-st", "simmim-video"}
    names = set(registry.methods.names()) - fixed
    configs = {name: registry.methods.load(name).Config for name in names}
    with_ratio = {name for name, config in configs.items() if "mask_ratio" in config.model_fields}
    assert with_ratio == set(SMALL) == {name for name, cls in configs.items() if issubclass(cls, MaskRatioConfig)}


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_the_ratio_rises_over_the_training(tmp_path, name, options):
    method = build(name, mask_ratio=0.75, initial_mask_ratio=0.25, **options)
    drawn, report = train_and_count(tmp_path, method, steps=8)
    assert len(drawn) == 8
    assert all(torch.isfinite(torch.tensor(report.loss)))
    if "block" in options.values():  # on this small grid, blocks may end far from their ratio
        assert sum(drawn[-3:]) - sum(drawn[:3]) > 0.4
        return
    expected = [0.25 + 0.5 * step / 8 for step in range(8)]
    assert drawn == pytest.approx(expected, abs=0.15 if "square" in options.values() else 0.06)
    unchanged, _ = train_and_count(tmp_path / "unchanged", build(name, mask_ratio=0.75, **options), steps=8)
    assert len(set(unchanged)) == 1


def test_guided_masks_follow_the_ratio():
    method = build("hpm", mask_ratio=0.75, initial_mask_ratio=0.25, guided_share=1.0)
    images, counts = torch.randn(2, 1, 8, 8), []
    for progress in (0.0, 0.5):
        method.progress = progress
        method.before_step(progress)
        mask = method.sample_guided_mask(images, progress, torch.Generator())
        counts.append(int(mask[0].sum()))
        assert torch.isfinite(method(images, mask).loss)
    assert counts == [4, 8]


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [
        ({}, [0.25, 0.375, 0.5, 0.625]),
        ({"mask_ratio_until": 0.5}, [0.25, 0.5, 0.75, 0.75]),
        ({"mask_ratio_ramp": "step", "mask_ratio_until": 0.5}, [0.25, 0.25, 0.75, 0.75]),
        ({"mask_ratio_ramp": "cosine"}, [0.25, 0.3232, 0.5, 0.6768]),
    ],
)
def test_the_ramps(ramp, expected):
    config = build("mae", mask_ratio=0.75, initial_mask_ratio=0.25, **ramp).config
    assert [config.ratio_at(step / 4) for step in range(4)] == pytest.approx(expected, abs=1e-4)
    assert config.ratio_at(1.0) == 0.75


def test_a_ratio_may_fall(tmp_path):
    drawn, _ = train_and_count(tmp_path, build("simmim", mask_ratio=0.25, initial_mask_ratio=0.75), steps=4)
    assert drawn == [masked_count(16, ratio) / 16 for ratio in (0.75, 0.625, 0.5, 0.375)]


def test_mae_counts_the_visible_patches_of_each_step(tmp_path):
    method, seen = build("mae", mask_ratio=0.75, initial_mask_ratio=0.25), []
    assert method.visible == 4
    forward = method._predict
    method._predict = lambda images, keep: (seen.append(keep.shape[1]), forward(images, keep))[1]
    train_and_count(tmp_path, method, steps=4)
    assert seen == [12, 10, 8, 6]


def test_outside_of_a_training_the_last_ratio_counts():
    for name in SMALL:
        method = build(name, mask_ratio=0.75, initial_mask_ratio=0.25)
        mask = method.sample_mask(4, torch.Generator().manual_seed(0))
        assert float(method.masked_cells(mask).float().mean()) == pytest.approx(0.75, abs=0.01)


def test_a_resumed_training_continues_the_ramp(tmp_path):
    options = {"mask_ratio": 0.75, "initial_mask_ratio": 0.25}
    whole, resumed = build("mae", **options), build("mae", **options)
    drawn, report = train_and_count(tmp_path / "whole", whole, steps=8)
    train_and_count(tmp_path / "part", build("mae", **options), steps=8, until=3)
    rest, again = train_and_count(tmp_path / "part", resumed, steps=8)
    assert rest == drawn[3:]
    assert again.loss == report.loss
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_a_recipe_shows_both_ends_and_fingerprints_stay():
    shown = describe("smoke", "mae", {"method.initial_mask_ratio": 0.4})
    assert "# mask: 20 of 7 x 7 = 49 patches masked (40.8%) at first, 37 of 7 x 7 = 49 patches masked" in shown
    assert "initial_mask_ratio" not in build("mae").config.shaping()
    assert build("mae", initial_mask_ratio=0.5).config.shaping()["initial_mask_ratio"] == 0.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mae", {"mask": "grid", "initial_mask_ratio": 0.5}, "grid masks exist for few ratios and cannot change"),
        ("mae", {"mask_ratio_until": 0.5}, "need an initial_mask_ratio to start from"),
        ("mae", {"initial_mask_ratio": 0.5, "mask_ratio_ramp": "step"}, "needs a mask_ratio_until below 1"),
    ],
)
def test_contradictions_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_an_impossible_first_ratio_is_refused_before_the_training():
    with pytest.raises(InputError):
        build("mae", mask_ratio=0.75, initial_mask_ratio=0.99)
