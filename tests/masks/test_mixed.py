"""Masks of mixed ratios: iBOT's masks from its random streams, its distribution from torch's."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.errors import InputError
from mimbench.masks import block_mask, mixed_ratio_mask
from mimbench.masks.official import python_mixed_mask

GOLDEN = Path(__file__).parents[1] / "golden"
EXACT = {name: value for name, value in np.load(GOLDEN / "mask_exact_a.npz").items() if name.startswith("ibot")}
STATS = {
    case["name"]: case
    for case in json.loads((GOLDEN / "mask_stats_a.json").read_text())["stats"]
    if case["generator"].startswith("iBOT")
}


def settings(name):
    """(ratios, spreads, kind) as the official ones of a case."""
    case = STATS[name.removeprefix("ibot_").removesuffix("_local10")]["settings"]
    ratios, spreads = (np.atleast_1d(case[key]).tolist() for key in ("ratio", "var"))
    return ratios, spreads, {"rand": "random", "block": "block"}[case["shape"]]


@pytest.mark.parametrize("name", EXACT)
def test_the_official_streams_give_ibots_masks(name):
    """Three images with two global views each; in one case, ten local crops draw masks after them."""
    expected = torch.from_numpy(EXACT[name]).bool()
    grid = tuple(expected.shape[-2:])
    ratios, spreads, kind = settings(name)
    for seed in range(10):
        streams = random.Random(seed), np.random.RandomState(seed)
        for image in range(3):
            masks = python_mixed_mask(2, grid, ratios, spreads, kind, *streams)
            assert torch.equal(masks, expected[seed, image])
            if name.endswith("local10"):
                python_mixed_mask(10, (6, 6), ratios, spreads, kind, *streams)


@pytest.mark.parametrize("rng", ["torch", "official"])
@pytest.mark.parametrize("name", STATS)
def test_masks_have_the_official_distribution(name, rng):
    case = STATS[name]
    ratios, spreads, kind = settings(name)
    masks = mixed_ratio_mask(2000, tuple(case["grid"]), ratios, spreads, seeded(1), kind=kind, rng=rng)
    counts = masks.sum((1, 2)).double()
    filled = counts[counts > 0]
    assert abs(float((counts == 0).double().mean()) - case["empty_fraction"]) < 0.05
    expected = case["count_nonempty"]
    error = expected["std"] * (1 / len(filled) + 1 / (2000 * (1 - case["empty_fraction"]))) ** 0.5
    assert abs(float(filled.mean()) - expected["mean"]) <= 4.5 * error + 1e-9
    assert abs(float(filled.std()) - expected["std"]) <= 0.1 * expected["std"] + 0.1
    share = masks.double().mean(0)
    centre = case["position_prob"]["centre"]
    rows, columns = ((length - 1) // 2 for length in case["grid"])
    assert abs(float(share[rows, columns]) - centre) < 0.07
    corners = share[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert abs(float(corners.mean()) - case["position_prob"]["corners"]) < 0.04


def test_each_sample_has_a_count_of_its_own():
    counts = torch.tensor([0.0, 3.9, 20.0, 0.5])
    for rng in ("torch", "official"):
        masks = block_mask(4, (8, 8), counts, seeded(), min_block=2, rng=rng)
        sizes = masks.sum((1, 2))
        assert sizes[0] == sizes[3] == 0
        assert 2 <= sizes[1] <= 3
        assert 10 <= sizes[2] <= 20
    assert not block_mask(2, (8, 8), torch.zeros(2), seeded()).any()
    with pytest.raises(InputError, match="exact=True needs one count"):
        block_mask(4, (8, 8), counts, seeded(), exact=True)


@pytest.mark.parametrize(
    ("ratios", "spreads", "message"),
    [
        ((0.3,), (0.0, 0.1), "1 mask ratios need as many spreads, not 2"),
        ((), (), "0 mask ratios"),
        ((0.1,), (0.2,), r"ratio of 0.1 with a spread of 0.2 leaves \[0, 1\)"),
        ((0.9,), (0.1,), r"leaves \[0, 1\)"),
    ],
)
def test_impossible_ratios_are_refused(ratios, spreads, message):
    with pytest.raises(InputError, match=message):
        mixed_ratio_mask(2, (8, 8), ratios, spreads, seeded())


@pytest.mark.parametrize("kind", ["block", "random"])
@pytest.mark.parametrize("rng", ["torch", "official"])
def test_masks_depend_on_the_generator_only(kind, rng):
    first, second, again = (
        mixed_ratio_mask(6, (6, 9), (0.0, 0.4), (0.0, 0.2), seeded(seed), kind=kind, rng=rng) for seed in (1, 2, 1)
    )
    assert first.shape == (6, 6, 9)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
