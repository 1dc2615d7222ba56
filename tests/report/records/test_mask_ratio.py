"""The mask ratio of methods whose recipes call it otherwise, against counts by hand."""

from __future__ import annotations

import pytest

from helpers.page_results import REFERENCE
from mimbench import load_records
from mimbench.report.records.mask_ratio import derive_mask_ratio

VIT = {"name": "vit", "patch_size": 16}


@pytest.mark.parametrize(
    ("method", "options", "size", "ratio"),
    [
        ("beit", {"hidden_patches": 75}, 224, 0.38),  # 75 of 196
        ("data2vec", {"hidden_patches": 120}, 224, 0.61),  # 120 of 196
        ("cae", {"hidden_patches": 75}, 224, 0.38),
        ("ibot", {"mask_ratios": [0.0, 0.3]}, 224, "0, 0.3"),
        ("ijepa", {"targets": 4}, 224, "4 blocks"),
        ("beit", {}, 224, None),
        ("of-a-third-party", {"hidden_patches": 75}, 224, None),
    ],
)
def test_the_ratio_follows_from_the_recipe(method, options, size, ratio):
    recipe = {"method": options, "encoder": VIT, "input": {"image_size": size}}
    assert derive_mask_ratio(method, recipe) == ratio


def test_an_encoder_with_several_grids_has_no_single_count():
    encoder = {"name": "swin", "patch_size": 4, "depths": [2, 2]}
    recipe = {"method": {"hidden_patches": 9}, "encoder": encoder, "input": {"image_size": 224}}
    assert derive_mask_ratio("beit", recipe) is None


def test_every_method_of_the_reference_that_masks_has_one():
    records = load_records(REFERENCE, ["method.mask_ratio"])
    without = set(records.loc[records["method.mask_ratio"].isna(), "method"])
    assert without <= {"autoencoder", "random-init", "supervised"}
