"""Mask generators: the official masks from the official streams, the official distribution from torch's."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.mask_statistics import position_probability, regions, statistics, summary
from helpers.random_inputs import seeded
from mimbench.errors import InputError
from mimbench.masks import (
    block_mask,
    grid_mask,
    guided_mask,
    masked_count,
    mean_over_masked,
    random_mask,
    random_order,
    resize_mask,
    square_mask,
    visible_indices,
)
from mimbench.masks.official import numpy_random_mask, python_block_mask

GOLDEN = Path(__file__).parents[1] / "golden"
EXACT = dict(np.load(GOLDEN / "mask_exact.npz"))
STATS = json.loads((GOLDEN / "mask_stats.json").read_text())["stats"]
BLOCKS = [case for case in STATS if case["generator"].startswith("BEiT")]


def names(family):
    return [name for name in EXACT if name.startswith(family) and not name.endswith("restore")]


def simmim_masks(batch, image, mask_patch, patch, ratio, rng):
    side, fine = image // mask_patch, image // patch
    masked = masked_count(side * side, ratio)
    return resize_mask(numpy_random_mask(batch, (side, side), masked, rng), (fine, fine))


def beit_settings(case):
    """A golden setting as (grid, count, keywords)."""
    options = case["settings"]
    blocks = {"min_block": options["min_num_patches"], "max_block": options["max_num_patches"]}
    return tuple(case["grid"]), options["num_masking_patches"], blocks


@pytest.mark.parametrize("name", names("simmim"))
def test_numpy_stream_gives_simmim_masks(name):
    image, mask_patch, patch, ratio = map(int, name.split("_")[1:])
    for seed, expected in enumerate(EXACT[name]):
        masks = simmim_masks(3, image, mask_patch, patch, ratio / 100, np.random.RandomState(seed))
        assert np.array_equal(masks, expected)


@pytest.mark.parametrize("name", names("beit"))
def test_python_stream_gives_beit_masks(name):
    side, count, *limits = name.split("_")[1:]
    blocks = {f"{limit[:3]}_block": int(limit[3:]) for limit in limits}
    for seed, expected in enumerate(EXACT[name]):
        masks = python_block_mask(3, (int(side), int(side)), int(count), random.Random(seed), **blocks)
        assert np.array_equal(masks, expected)


@pytest.mark.parametrize("name", names("mae"))
def test_torch_stream_gives_mae_masks(name):
    side, ratio = map(int, name.split("_")[1:])
    grid = (side, side)
    for seed, expected in enumerate(EXACT[name]):
        assert np.array_equal(random_mask(3, grid, ratio / 100, seeded(seed), rounding="mae"), expected)
        restore = random_order(3, grid, seeded(seed)).argsort(dim=1)
        assert np.array_equal(restore, EXACT[f"{name}_ids_restore"][seed])


def official_masks(case):
    options = case["settings"]
    if case["generator"].startswith("SimMIM"):
        sizes = (options[key] for key in ("input_size", "mask_patch_size", "model_patch_size", "mask_ratio"))
        return simmim_masks(2000, *sizes, np.random.RandomState(0))
    if case["generator"].startswith("MAE"):
        return random_mask(2000, tuple(case["grid"]), options["mask_ratio"], seeded(), rounding="mae")
    grid, count, blocks = beit_settings(case)
    return python_block_mask(2000, grid, count, random.Random(0), **blocks)


@pytest.mark.parametrize("case", STATS, ids=lambda case: f"{case['generator'][:4]}-{list(case['settings'].values())}")
def test_official_streams_have_the_official_statistics(case):
    """The same 2000 masks as those that were measured: every statistic is equal."""
    masks = official_masks(case).numpy()
    for name, values in statistics(masks).items():
        assert summary(values) == pytest.approx(case[name], abs=1e-6), name
    assert position_probability(masks) == pytest.approx(case["position_prob"], abs=1e-6)
    counts, times = np.unique(masks.sum((1, 2)), return_counts=True)
    assert {str(count): number for count, number in zip(counts, times, strict=True)} == case["count_histogram"]


def assert_same_distribution(masks, case, *, sigmas=4.5):
    """Means and spreads of `masks` differ from the golden 2000 by no more than chance allows."""
    n, m = len(masks), case["n_masks"]
    measured = {name: values for name, values in statistics(masks).items() if name in case}
    assert {"count", "n_components_4conn", "boundary_edges"} <= set(measured)
    for name, values in measured.items():
        error = max(case[name]["std"], values.std()) * np.sqrt(1 / n + 1 / m)
        assert abs(values.mean() - case[name]["mean"]) <= sigmas * error, name
        kurtosis = ((values - values.mean()) ** 4).mean() / max(values.var() ** 2, 1e-12)
        spread = case[name]["std"] * np.sqrt((max(kurtosis, 3) - 1) / 4) * np.sqrt(1 / n + 1 / m)
        assert abs(values.std() - case[name]["std"]) <= sigmas * spread, name
    measured = {name: values for name, values in regions(masks).items() if name in case["position_prob"]}
    assert {"corners", "centre"} <= set(measured)
    for region, values in measured.items():
        error = values.std() * np.sqrt(1 / n + 1 / m)
        assert abs(values.mean() - case["position_prob"][region]) <= sigmas * error + 1e-12, region


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: str(list(case["settings"].values())))
def test_block_masks_of_a_batch_have_the_official_distribution(case):
    grid, count, blocks = beit_settings(case)
    masks = block_mask(4000, grid, count, seeded(1), **blocks).numpy()
    assert_same_distribution(masks, case)
    official = case["count_histogram"]
    for masked in official.keys() | map(str, np.unique(masks.sum((1, 2)))):
        share = official.get(masked, 0) / 2000
        measured = (masks.sum((1, 2)) == int(masked)).mean()
        assert abs(measured - share) <= 4.5 * np.sqrt(max(share, measured) * (1 / 2000 + 1 / 4000)), masked


CAE = [
    case
    for case in json.loads((GOLDEN / "mask_stats_b.json").read_text())["stats"]
    if case["generator"].startswith("CAE")
]


@pytest.mark.parametrize("rng", ["torch", "official"])
@pytest.mark.parametrize("case", CAE, ids=lambda case: str(list(case["settings"].values())))
def test_block_masks_that_try_further_blocks_have_caes_distribution(case, rng):
    settings = case["settings"]
    count, least = settings["num_masking_patches"], settings["min_num_patches"]
    masks = block_mask(2000, settings["grid"], count, seeded(1), min_block=least, retry=True, rng=rng).numpy()
    assert (masks.sum((1, 2)) == count).all()
    assert_same_distribution(masks, case | {"n_masks": 2000})


def test_block_masks_that_could_never_be_filled_are_refused():
    with pytest.raises(InputError, match="aspect 2 to 3 cannot fill single cells; include 1"):
        block_mask(2, (8, 8), 20, seeded(), min_block=4, aspect=(2, 3), retry=True)


@pytest.mark.parametrize("rng", ["torch", "official"])
def test_random_masks_have_simmims_distribution(rng):
    case = STATS[4]
    assert case["settings"] == {"input_size": 224, "mask_patch_size": 32, "model_patch_size": 16, "mask_ratio": 0.6}
    masks = resize_mask(random_mask(2000, (7, 7), 0.6, seeded(1), rng=rng), (14, 14)).numpy()
    assert_same_distribution(masks, case)


GENERATORS = {
    "random": lambda g: random_mask(5, (6, 9), 0.6, g),
    "random-official": lambda g: random_mask(5, (6, 9), 0.6, g, rng="official"),
    "block": lambda g: block_mask(5, (6, 9), 20, g, min_block=4),
    "block-official": lambda g: block_mask(5, (6, 9), 20, g, min_block=4, rng="official"),
    "block-exact": lambda g: block_mask(5, (6, 9), 20, g, min_block=4, exact=True),
    "block-retry": lambda g: block_mask(5, (6, 9), 20, g, min_block=4, retry=True),
    "square": lambda g: square_mask(5, (6, 9), 0.3, g),
    "grid": lambda g: grid_mask(5, (6, 9), g, period=3, shift=True),
}


@pytest.mark.parametrize("draw", GENERATORS.values(), ids=GENERATORS)
def test_masks_depend_on_the_generator_only(draw):
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    generator = seeded(7)
    first, second = draw(generator), draw(generator)
    assert (first.shape, first.dtype) == ((5, 6, 9), torch.bool)
    assert first.device == generator.device
    assert torch.equal(first, draw(seeded(7)))
    assert not torch.equal(first, second)
    assert len({tuple(mask.flatten().tolist()) for mask in first}) > 1
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()


@pytest.mark.parametrize(
    ("cells", "ratio", "rounding", "masked"),
    [
        (36, 0.6, "ceil", 22),
        (36, 0.6, "floor", 21),
        (49, 0.75, "mae", 37),
        (100, 0.9, "ceil", 90),
        (100, 0.9, "mae", 91),
    ],
)
def test_masked_count(cells, ratio, rounding, masked):
    assert masked_count(cells, ratio, rounding) == masked
    masks = random_mask(4, (cells, 1), ratio, seeded(), rounding=rounding)
    assert masks.sum((1, 2)).tolist() == [masked] * 4


def test_exact_block_masks_only_add_to_the_blocks():
    blocks = block_mask(500, (14, 14), 75, seeded(3))
    filled = block_mask(500, (14, 14), 75, seeded(3), exact=True)
    assert blocks.sum((1, 2)).min() < 75
    assert (filled.sum((1, 2)) == 75).all()
    assert (filled | ~blocks).all()


@pytest.mark.parametrize("rng", ["torch", "official"])
def test_blocks_never_span_the_image(rng):
    assert not block_mask(50, (3, 9), 9, seeded(), min_block=9, aspect=(1, 1), rng=rng).any()
    assert (block_mask(50, (4, 9), 9, seeded(), min_block=9, aspect=(1, 1), rng=rng).sum((1, 2)) == 9).all()


def test_square_masks_are_one_square_anywhere_or_in_the_middle():
    masks = square_mask(300, (6, 8), 0.2, seeded())
    assert (statistics(masks.numpy())["mask_bbox_area"] == 9).all()
    assert (masks.sum((1, 2)) == 9).all()
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in masks}) == 4 * 6
    centred = square_mask(2, (6, 6), 0.25, seeded(), centred=True)
    assert centred[1].nonzero().amin(0).tolist() == [1, 1]
    assert centred[1].nonzero().amax(0).tolist() == [3, 3]


def test_grid_masks_keep_one_cell_of_each_period():
    assert torch.equal(grid_mask(1, (4, 4), seeded())[0].int(), torch.tensor([[0, 1], [1, 1]]).repeat(2, 2).int())
    masks = grid_mask(50, (6, 9), seeded(), period=3, shift=True)
    visible = (~masks).unflatten(1, (2, 3)).unflatten(3, (3, 3)).sum((2, 4))
    assert (visible == 1).all()
    assert len({int((~mask).flatten().int().argmax()) for mask in masks}) == 9


def test_visible_indices_are_the_cells_that_are_not_masked():
    mask = random_mask(3, (4, 5), 0.75, seeded())
    keep = visible_indices(mask)
    assert keep.shape == (3, 5)
    assert torch.equal(torch.ones(3, 20).scatter(1, keep, 0).bool().view(3, 4, 5), mask)
    with pytest.raises(InputError, match="different numbers"):
        visible_indices(block_mask(200, (14, 14), 75, seeded()))


def test_mean_over_masked_takes_one_value_per_cell():
    values = torch.arange(8.0).reshape(2, 2, 2)
    mask = torch.tensor([[[True, False], [False, False]], [[False, False], [True, True]]])
    assert mean_over_masked(values, mask) == (0 + 6 + 7) / 3
    with pytest.raises(ValueError, match=r"needs values \[B, h, w\], one per cell; these are \[2, 2, 2, 3\]"):
        mean_over_masked(values[..., None].expand(2, 2, 2, 3), mask)


def test_resize_repeats_cells_and_coarsens_by_rule():
    mask = torch.tensor([[[True, False], [False, False]]])
    fine = resize_mask(mask, (4, 6))
    assert fine[0].int().tolist() == [[1, 1, 1, 0, 0, 0]] * 2 + [[0] * 6] * 2
    assert torch.equal(resize_mask(fine, (2, 2)), mask)
    assert torch.equal(resize_mask(mask, (2, 2)), mask)
    assert resize_mask(mask, (1, 4)).tolist() == [[[True, True, False, False]]]
    assert resize_mask(mask, (1, 1)).item() is True
    assert resize_mask(mask, (1, 1), "all").item() is False
    assert resize_mask(torch.ones(1, 4, 4, dtype=torch.bool), (2, 2), "all").all()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda g: random_mask(1, (4, 4), 0.0, g), "mask ratio 0 is not inside"),
        (lambda g: random_mask(1, (4, 4), 1.5, g), "mask ratio 1.5 is not inside"),
        (lambda g: random_mask(1, (2, 2), 0.9, g), "mask ratio 0.9 masks everything of 4"),
        (lambda g: random_mask(1, (2, 2), 0.1, g, rounding="floor"), "masks nothing of 4"),
        (lambda g: block_mask(1, (4, 4), 16, g), "a mask of 16 cells masks everything"),
        (lambda g: block_mask(1, (4, 4), 12, g, min_block=10), "no block of 10 cells fits inside a 4 x 4 grid"),
        (lambda g: block_mask(1, (4, 4), 8, g, min_block=0), "are impossible"),
        (lambda g: block_mask(1, (4, 4), 8, g, aspect=(2, 1)), "aspect 2 to 1 are impossible"),
        (lambda g: square_mask(1, (4, 4), 0.99, g), "leaves nothing of a 4 x 4 grid"),
        (lambda g: square_mask(1, (4, 4), 1.0, g), "mask ratio 1 is not inside"),
        (lambda g: grid_mask(1, (7, 7), g), "period 2 does not tile a 7 x 7 grid"),
        (lambda g: resize_mask(random_mask(1, (6, 6), 0.5, g), (4, 6)), "6 x 6 cells does not fit a 4 x 6 grid"),
    ],
)
def test_impossible_masks_are_refused(draw, words):
    with pytest.raises(InputError, match=words) as error:
        draw(seeded())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rng", ["torch", "official"])
def test_a_guided_mask_has_the_highest_scores_and_random_others(rng):
    scores = torch.randn(200, 4, 4, generator=seeded(7))
    mask = guided_mask(scores, 12, 5, seeded(), rng=rng).flatten(1)
    order = scores.flatten(1).argsort(1, descending=True)
    assert (mask.sum(1) == 12).all()
    assert mask.gather(1, order[:, :5]).all()
    assert (mask.gather(1, order[:, 5:]).float().mean(0) - 7 / 11).abs().max() < 0.15
    assert torch.equal(mask, guided_mask(scores, 12, 5, seeded(), rng=rng).flatten(1))
    assert not torch.equal(mask, guided_mask(scores, 12, 5, seeded(1), rng=rng).flatten(1))
    assert (guided_mask(scores, 12, 0, seeded(), rng=rng).float().mean(0) - 12 / 16).abs().max() < 0.15
    assert torch.equal(
        guided_mask(scores, 12, 12, seeded(), rng=rng).flatten(1),
        mask.scatter(1, order, False).scatter(1, order[:, :12], True),
    )


@pytest.mark.parametrize(("masked", "guided", "message"), [(16, 1, "masks everything"), (3, 4, "4 guided cells")])
def test_an_impossible_guided_mask_is_refused(masked, guided, message):
    with pytest.raises(InputError, match=message):
        guided_mask(torch.zeros(1, 4, 4), masked, guided, seeded())
