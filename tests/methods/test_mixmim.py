"""MixMIM: masks, rates and groups of the official code, how images are mixed, and what the encoder sees of each."""

from __future__ import annotations

import pytest
import torch

from helpers.cell_methods import (
    check_any_grid,
    check_cell_distribution,
    check_cell_masks,
    check_groups,
    check_pretraining,
)
from helpers.official_values import GOLDEN
from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench.masks import mask_at_pixels
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden
from mimbench_methods.mixmim import MixMIM

OFFICIAL = {"position": "sincos-and-relative", "shift": False}


def build(image_size=32, window=4, encoder=OFFICIAL, **options) -> MixMIM:
    """Cells of 8 px, on a grid of 4 x 4."""
    torch.manual_seed(0)
    config = Swin.Config(patch_size=2, embed_dim=8, depths=(1, 2, 1), num_heads=(1, 2, 2), window=window, **encoder)
    sizes = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
    return MixMIM(MixMIM.Config(**sizes | options), Swin(config, image_size=image_size, in_channels=3))


def batch(method: MixMIM, count=4):
    side = method.encoder.image_size
    return torch.randn(count, 3, side, side, generator=seeded()), method.sample_mask(count, seeded())


@pytest.mark.parametrize("name", ["7x7_0.5", "12x12_0.5", "7x7_0.75"])
def test_masks_are_the_official_ones_from_the_official_stream(name):
    grid, _, ratio = name.partition("_")
    side = int(grid.partition("x")[0])
    check_cell_masks(build(image_size=8 * side, window=side, mask_ratio=float(ratio)), f"mixmim_{name}")


def test_masks_have_the_official_distribution():
    check_cell_distribution(build(image_size=56, window=7), "MixMIM")


@pytest.mark.parametrize("case", ["A", "B"])
def test_pretraining_has_the_official_rates(case):
    check_pretraining("mixmim", case)


def test_pretraining_decays_the_official_parameters():
    check_groups("mixmim")


def test_masked_cells_show_the_reversed_batch():
    method = build()
    images, mask = batch(method, 3)
    tokens, seen = method.encoder.embed(images), []
    method.encoder.encode_mixed = lambda mixed, mask: seen.append(mixed) or torch.zeros(3, 32, 4, 4)
    method.encode(images, mask)
    replaced = mask[0].repeat_interleave(4, 0).repeat_interleave(4, 1)
    for number in range(3):
        assert torch.equal(seen[0][number][replaced], tokens[2 - number][replaced])
        assert torch.equal(seen[0][number][~replaced], tokens[number][~replaced])


def test_each_cell_is_predicted_from_the_other_cells_of_its_image():
    """Changed masked cells of image 1 move its visible cells' prediction, and nothing else; so do visible ones."""
    method = build().eval()
    images, mask = batch(method)
    at_pixels = mask_at_pixels(mask, images)[:1]
    with torch.no_grad():
        before = method.predict(images, mask)
        for changed, moved in ((at_pixels, ~mask[0]), (~at_pixels, mask[0])):
            other = images.clone()
            other[1] = torch.where(changed[0], images[1].flip(0), images[1])
            difference = (method.predict(other, mask) - before).abs().amax(-1)
            assert (difference[1][moved] > 1e-4).all()
            assert (difference[1][~moved] < 1e-6).all()
            assert (difference[[0, 2, 3]] < 1e-6).all()


def test_the_image_in_the_middle_of_an_odd_batch_mixes_with_itself():
    method = build().eval()
    images, mask = batch(method, 3)
    alone = method.predict(images[1:2], mask[1:2])
    assert torch.allclose(method.predict(images, mask)[1:2], alone, atol=1e-5)


def test_the_loss_covers_every_cell_once():
    method = build(norm_pixels=False)
    images, mask = batch(method)
    target = method.target(images)
    assert target.shape == (4, 4, 4, 192)
    assert method.loss(target + 2, target, mask).item() == pytest.approx(4)
    half = torch.where(mask.unsqueeze(-1), target + 2, target)
    assert method.loss(half, target, mask).item() == pytest.approx(4 * mask.float().mean().item())


def test_pictures_show_visible_pixels_as_they_are():
    method = build().eval()
    images, mask = batch(method)
    masked = mask_at_pixels(mask, images)
    rebuilt = method.reconstruct(images, mask)
    assert torch.equal(rebuilt.masked_fill(masked, 0), images.masked_fill(masked, 0))
    assert not torch.isclose(rebuilt, images)[masked.expand_as(images)].all()


@pytest.mark.parametrize("encoder", [OFFICIAL, {}], ids=["official", "shifted windows"])
def test_everything_trains(encoder, reaches_every_parameter, trains_in_bf16):
    method = build(encoder=encoder)
    reaches_every_parameter(method, *batch(method))
    trains_in_bf16(method, *batch(method))


def test_a_step_runs_without_values(trains_without_values):
    trains_without_values(build, (2, 3, 32, 32), (2, 4, 4))


def test_masks_may_have_any_grid_and_mask_everything():
    method = build().eval()
    check_any_grid(method, *batch(method))


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="masks nothing of 16 cells"):
        build(mask_ratio=0.01)
    with pytest.raises(InputError, match="keep the tokens of two mixed images apart; this vit cannot"):
        MixMIM(MixMIM.Config(), ViT(ViT.Config(embed_dim=8, depth=1, num_heads=1), image_size=32, in_channels=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_stride": 16}, "cells of 32 px here, not of 16 px"),
        ({"range_mask_ratio": 0.2}, "range_mask_ratio must be 0"),
        ({"patch_norm": False}, "no patch_norm = False"),
    ],
)
def test_files_of_other_models_are_refused(change, message):
    golden = read_golden(GOLDEN / "mixmim_swin_tiny.npz")
    golden.meta["config"].update(change)
    with pytest.raises(InputError, match=message):
        compare(golden)
