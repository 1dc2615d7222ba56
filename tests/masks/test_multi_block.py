"""Multi-block masks and tubes: the official masks from the official streams, the official distribution from torch's."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.errors import InputError
from mimbench.masks import multi_block_mask, tube_mask
from mimbench.masks.multi_block import draw_sizes
from mimbench.masks.official import numpy_tube_mask, torch_multi_blocks

GOLDEN = Path(__file__).parents[1] / "golden"
BLOCKS = dict(np.load(GOLDEN / "mask_exact_a.npz"))
TUBES = dict(np.load(GOLDEN / "mask_exact_b.npz"))
STATS = [
    case
    for case in json.loads((GOLDEN / "mask_stats_a.json").read_text())["stats"]
    if case["generator"].startswith("I-JEPA") and case["settings"]["img_size"] == 224
]


@pytest.mark.parametrize("name", [key.removesuffix("/targets") for key in BLOCKS if key.endswith("/targets")])
def test_the_official_stream_gives_ijepas_blocks(name):
    grid = BLOCKS[f"{name}/targets"].shape[-2:]
    for seed in range(10):
        places = seeded(seed)
        for call in range(3):
            sizes = draw_sizes(grid, seeded(3 * seed + call), (0.15, 0.2), (0.75, 1.5), (0.85, 1.0))
            targets, contexts = torch_multi_blocks(2, grid, 4, *sizes, 11, False, places)
            assert np.array_equal(targets.transpose(0, 1), BLOCKS[f"{name}/targets"][seed, call])
            fewest = contexts.sum((1, 2)).min()
            cut = contexts & (contexts.flatten(1).cumsum(1).view_as(contexts) <= fewest)
            assert np.array_equal(cut, BLOCKS[f"{name}/context"][seed, call, :, 0])


def blocks_at(index, grid):
    """Row-major indices int64 [..., K] -> bool [..., Gh, Gw]."""
    cells = torch.zeros(*index.shape[:-1], grid[0] * grid[1], dtype=torch.bool)
    return cells.scatter(-1, index, True).unflatten(-1, grid)


@pytest.mark.parametrize("case", STATS, ids=lambda case: f"{case['grid']}-{case['settings']['batch']}")
def test_blocks_of_a_batch_have_the_official_distribution(case):
    grid, batch = tuple(case["grid"]), case["settings"]["batch"]
    calls, generator = 1000 if batch == 1 else 60, seeded(1)
    drawn = [multi_block_mask(batch, grid, generator) for _ in range(calls)]
    seen = torch.cat([blocks_at(mask.context, grid) for mask in drawn])
    union = torch.cat([blocks_at(mask.targets, grid).any(0) for mask in drawn])
    # One length per call: calls are independent, the samples of one are not.
    lengths = {
        "context_len": [mask.context.shape[1] for mask in drawn],
        "target_len": [mask.targets.shape[2] for mask in drawn],
        "target_union": [float(blocks_at(mask.targets, grid).any(0).sum((1, 2)).float().mean()) for mask in drawn],
    }
    for name, values in lengths.items():
        spread = max(np.std(values), case[name]["std"] / (1 if batch == 1 else 4))
        error = spread * np.sqrt(1 / calls + batch / case["n_masks"])
        assert abs(np.mean(values) - case[name]["mean"]) <= 4.5 * error, name
    for cells, key in ((seen, "position_prob_context"), (union, "position_prob_target_union")):
        share, golden = cells.float().mean(0), case[key]
        assert share[-1].max() == share[:, -1].max() == 0
        centre = cells[:, (grid[0] - 1) // 2 : grid[0] // 2 + 1, (grid[1] - 1) // 2 : grid[1] // 2 + 1]
        for name, value in (("first_row", share[0]), ("first_col", share[:, 0]), ("centre", centre.float())):
            assert abs(float(value.mean()) - golden[name]) < (0.04 if batch == 1 else 0.06), (key, name)


@pytest.mark.parametrize("rng", ["torch", "official"])
def test_the_context_shares_no_cell_with_a_target(rng):
    mask = multi_block_mask(6, (14, 14), seeded(3), rng=rng)
    assert mask.context.dtype == mask.targets.dtype == torch.int64
    assert mask.targets.shape[:2] == (4, 6)
    assert (mask.context.diff(dim=1) > 0).all()
    assert (mask.targets.diff(dim=2) > 0).all()
    targets, masked = blocks_at(mask.targets, (14, 14)), mask.masked()
    assert (targets.any(0) & ~masked).sum() == 0
    assert ((~masked).sum((1, 2)) == mask.context.shape[1]).all()
    for block in targets.flatten(0, 1):
        rows, columns = block.any(1).sum(), block.any(0).sum()
        assert rows * columns == block.sum() == mask.targets.shape[2]


@pytest.mark.parametrize("rng", ["torch", "official"])
def test_an_allowed_overlap_keeps_the_whole_context_block(rng):
    mask = multi_block_mask(4, (8, 8), seeded(), context_scale=(0.5, 0.5), allow_overlap=True, rng=rng)
    assert mask.context.shape == (4, 36)
    reduced = multi_block_mask(4, (8, 8), seeded(), context_scale=(0.5, 0.5), rng=rng)
    assert reduced.context.shape[1] < 36


@pytest.mark.parametrize("rng", ["torch", "official"])
def test_a_context_without_room_gives_up_targets_one_by_one(rng):
    """Targets of 4 x 4 cells and a context of 6 x 6 in 7 x 7: more than 20 cells cannot avoid any target."""
    options = {"target_scale": (0.33, 0.33), "target_aspect": (1.0, 1.0), "context_scale": (0.75, 0.75)}
    mask = multi_block_mask(3, (7, 7), seeded(), **options, min_context=21, rng=rng)
    assert mask.context.shape[1] >= 21
    assert multi_block_mask(3, (7, 7), seeded(), **options, min_context=1, rng=rng).context.shape[1] <= 20


@pytest.mark.parametrize("rng", ["torch", "official"])
@pytest.mark.parametrize(
    "draw",
    [
        lambda g, rng: multi_block_mask(5, (6, 9), g, min_context=3, rng=rng).targets,
        lambda g, rng: tube_mask(5, (2, 6, 9), 0.7, g, rng=rng),
    ],
    ids=["multi-block", "tube"],
)
def test_masks_depend_on_the_generator_only(draw, rng):
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    generator = seeded(7)
    first, second = draw(generator, rng), draw(generator, rng)
    assert torch.equal(first, draw(seeded(7), rng))
    assert first.shape != second.shape or not torch.equal(first, second)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()


@pytest.mark.parametrize("name", [key for key in TUBES if key.startswith("videomae")])
def test_the_official_stream_gives_videomaes_tubes(name):
    grid, ratio = name.split("_")[2:]
    frames, rows, columns = map(int, grid.split("x"))
    for seed, expected in enumerate(TUBES[name]):
        masked = int(float(ratio) * rows * columns)
        frame = numpy_tube_mask(3, (rows, columns), masked, np.random.RandomState(seed))
        assert np.array_equal(frame[:, None].expand(-1, frames, -1, -1), expected)


@pytest.mark.parametrize("rng", ["torch", "official"])
def test_tubes_repeat_one_frame(rng):
    mask = tube_mask(300, (3, 4, 5), 0.75, seeded(), rng=rng)
    assert (mask.shape, mask.dtype) == ((300, 3, 4, 5), torch.bool)
    assert (mask == mask[:, :1]).all()
    assert (mask[:, 0].sum((1, 2)) == 15).all()
    assert (mask[:, 0].float().mean(0) - 0.75).abs().max() < 0.12


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda g: multi_block_mask(2, (3, 3), g), r"a block of context_scale \(0.85, 1\) has 4 cells of a 3 x 3 grid"),
        (
            lambda g: multi_block_mask(2, (2, 2), g, min_context=1),
            "a block of target_scale .* has 0 cells of a 2 x 2 grid",
        ),
        (lambda g: multi_block_mask(2, (8, 8), g, target_scale=(0.3, 0.2)), r"target_scale \(0.3, 0.2\) is impossible"),
        (
            lambda g: multi_block_mask(2, (8, 8), g, context_scale=(0.9, 1.1)),
            r"context_scale \(0.9, 1.1\) is impossible",
        ),
        (lambda g: multi_block_mask(2, (8, 8), g, targets=0), "needs one target and one cell of context or more"),
        (lambda g: tube_mask(2, (8, 8), 0.5, g), "needs a grid of time, rows and columns, not 8 x 8"),
        (lambda g: tube_mask(2, (2, 2, 2), 0.1, g), "masks nothing of 4"),
    ],
)
def test_impossible_masks_are_refused(draw, words):
    with pytest.raises(InputError, match=words) as error:
        draw(seeded())
    assert "\n" not in str(error.value)
