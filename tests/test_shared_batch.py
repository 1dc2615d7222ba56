"""Ranks that share a batch: together they draw what one process draws."""

from __future__ import annotations

import pytest
import torch

from mimbench.api import (
    DeviceTransform,
    DropPath,
    InputConfig,
    InputError,
    View,
    block_mask,
    draw_once,
    draw_rows,
    grid_mask,
    guided_mask,
    inverse_block_mask,
    mixed_ratio_mask,
    multi_block_mask,
    noise_mask,
    random_mask,
    random_order,
    rows_of_views,
    sharing_batch,
    square_mask,
    tube_mask,
    uniform_mask,
    visible_blocks_mask,
)
from mimbench.compute.blocks import mark_blocks, run_block
from mimbench.shared_batch import current_share, spread_rows, take_rows
from mimbench_methods._conv_decoder import NOISE_ROWS

GRID = (8, 8)
ROWS = 6
SCORES = torch.rand(ROWS, *GRID, generator=torch.Generator().manual_seed(9))
IMAGES = torch.randint(0, 256, (ROWS, 3, 40, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
COLOURS = View(
    image_size=16, jitter=(0.4, 0.4, 0.4, 0.1), grayscale=0.5, blur=0.5, solarize=0.5, color_jitter=0.3, flip=0.5
)


def augment(view):
    def draw(rows, generator):
        return DeviceTransform(view, 3, train=True, batched=True)(IMAGES[rows], generator)

    return draw


def masks(draw):
    return lambda rows, generator: draw(len(SCORES[rows]), generator)


DRAWS = {
    "random": masks(lambda n, g: random_mask(n, GRID, 0.6, g)),
    "random, official": masks(lambda n, g: random_mask(n, GRID, 0.6, g, rng="official")),
    "order": masks(lambda n, g: random_order(n, GRID, g, "normal")),
    "tube": masks(lambda n, g: tube_mask(n, (2, *GRID), 0.6, g)),
    "tube, official": masks(lambda n, g: tube_mask(n, (2, *GRID), 0.6, g, rng="official")),
    "square": masks(lambda n, g: square_mask(n, GRID, 0.3, g)),
    "grid": masks(lambda n, g: grid_mask(n, GRID, g, shift=True)),
    "block": masks(lambda n, g: block_mask(n, GRID, 30, g, min_block=4)),
    "block, exact": masks(lambda n, g: block_mask(n, GRID, 30, g, min_block=4, exact=True)),
    "block, retry": masks(lambda n, g: block_mask(n, GRID, 30, g, min_block=4, retry=True)),
    "block, official": masks(lambda n, g: block_mask(n, GRID, 30, g, min_block=4, exact=True, rng="official")),
    "mixed": masks(lambda n, g: mixed_ratio_mask(n, GRID, (0.0, 0.3), (0.0, 0.2), g)),
    "mixed, random": masks(lambda n, g: mixed_ratio_mask(n, GRID, (0.0, 0.3), (0.0, 0.2), g, kind="random")),
    "inverse": masks(lambda n, g: inverse_block_mask(n, GRID, 40, g)),
    "visible blocks": masks(lambda n, g: visible_blocks_mask(n, GRID, 0.7, g)),
    "noise": masks(lambda n, g: noise_mask(n, GRID, 0.6, g)),
    "uniform": masks(lambda n, g: uniform_mask(n, GRID, g)),
    "context": masks(lambda n, g: multi_block_mask(n, GRID, g, min_context=4).context),
    "targets": masks(lambda n, g: multi_block_mask(n, GRID, g, min_context=4).targets.transpose(0, 1)),
    "context, official": masks(lambda n, g: multi_block_mask(n, GRID, g, min_context=4, rng="official").context),
    "guided": lambda rows, g: guided_mask(SCORES[rows], 40, 10, g),
    "guided, official": lambda rows, g: guided_mask(SCORES[rows], 40, 10, g, rng="official"),
    "crops and flips": augment(InputConfig(image_size=16, flip=0.5)),
    "squares": augment(InputConfig(image_size=16, crop="simple", flip=0.5)),
    "colours": augment(COLOURS),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("processes", [2, 3])
def test_ranks_draw_the_rows_of_one_process(draw, processes):
    generator = torch.Generator().manual_seed(5)
    whole, after = draw(slice(None), generator), torch.rand(3, generator=generator)
    local, parts = ROWS // processes, []
    for rank in range(processes):
        generator.manual_seed(5)
        with sharing_batch(rank, processes):
            parts.append(draw(slice(rank * local, (rank + 1) * local), generator))
        assert torch.equal(torch.rand(3, generator=generator), after)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=2e-6)  # of crops the sums may round otherwise
    assert not torch.equal(parts[0], parts[1])


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize(("at_once", "shape"), [(4, (5, 7)), (16, (9, 3)), (100, (4, 4))])
def test_rows_that_are_drawn_in_parts_are_those_of_one_process(at_once, shape, views):
    calls = []

    def draw(rows):
        calls.append(rows)
        return torch.randn(rows, *shape)

    torch.manual_seed(3)
    alone = draw_rows(draw, 36, at_once=at_once)
    after = torch.rand(1)
    for rank in range(3):
        torch.manual_seed(3)
        with sharing_batch(rank, 3), rows_of_views(views):
            rows = draw_rows(draw, 12, at_once=at_once)
            assert torch.equal(rows, take_rows(alone))
        assert torch.equal(torch.rand(1), after)
    assert max(calls) <= at_once


def test_data2vec2_draws_the_noise_of_one_draw():
    """Of 16 values or more, torch's CPU generator draws the same in parts."""
    for rows, shape in ((150, (49, 24)), (65, (3, 17)), (64, (4, 4)), (200, (16, 192))):
        torch.manual_seed(5)
        whole = torch.randn(rows, *shape)
        torch.manual_seed(5)
        assert torch.equal(draw_rows(lambda count: torch.randn(count, *shape), rows, at_once=NOISE_ROWS), whole)  # noqa: B023


def test_one_process_shares_nothing():
    with sharing_batch(0, 1):
        assert current_share() is None


def test_draws_within_a_draw_are_for_the_same_rows():
    generator = torch.Generator().manual_seed(0)
    with sharing_batch(1, 2):
        mask = draw_rows(lambda rows: block_mask(rows, GRID, torch.full((rows,), 20.0), generator, min_block=4), 3)
    assert len(mask) == 3


def test_counts_of_one_process_alone_are_refused():
    with sharing_batch(0, 2), pytest.raises(InputError, match=r"3 counts for 6 masks.*draw both in draw_rows"):
        block_mask(3, GRID, torch.full((3,), 20.0), torch.Generator(), min_block=4)


def test_rows_of_two_views_follow_each_other():
    whole = torch.arange(8)  # view 1 of images 0 to 3, then view 2
    for rank, expected in ((0, [0, 1, 4, 5]), (1, [2, 3, 6, 7])):
        with sharing_batch(rank, 2), rows_of_views(2):
            rows = draw_rows(lambda count: torch.arange(count), 4)
            assert rows.tolist() == expected
            spread = spread_rows(rows)
            assert torch.equal(take_rows(spread), rows)
            assert spread.tolist() == [value if value in expected else 0 for value in whole.tolist()]


def test_one_draw_for_the_whole_batch_is_the_same_on_each_rank():
    drawn = []
    for rank in range(2):
        generator = torch.Generator().manual_seed(1)
        with sharing_batch(rank, 2):
            drawn.append(draw_once(lambda: random_order(1, GRID, generator)))  # noqa: B023
    assert torch.equal(*drawn)
    assert torch.equal(drawn[0], random_order(1, GRID, torch.Generator().manual_seed(1)))


def test_drop_path_drops_the_same_images_also_when_it_is_recomputed():
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path, self.seen = DropPath(0.5), []

        def forward(self, x):
            self.seen.append(self.path(torch.ones_like(x)).detach()[:, 0])
            return x * self.seen[-1][:, None]

    block = Block()
    mark_blocks([block])
    torch.manual_seed(3)
    whole = DropPath(0.5).draw(16, torch.device("cpu"))
    for rank, rows in ((0, [0, 1, 2, 3, 8, 9, 10, 11]), (1, [4, 5, 6, 7, 12, 13, 14, 15])):
        torch.manual_seed(3)
        block.seen.clear()
        with sharing_batch(rank, 2):
            with rows_of_views(2):
                out = run_block(block, torch.ones(8, 2, requires_grad=True), recompute=True)
            out.sum().backward()  # runs the block again
        first, second = block.seen
        assert torch.equal(first, whole[rows])
        assert torch.equal(second, first)
