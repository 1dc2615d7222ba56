"""GreenMIM: masks, rates and groups of the official code, its two decoders, and what the encoder sees."""

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
from helpers.official_values import GOLDEN, read_arrays
from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench.masks import mask_at_pixels
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden
from mimbench_methods.greenmim import GreenMIM


def build(image_size=32, window=4, **options) -> GreenMIM:
    """Cells of 8 px, on a grid of 4 x 4."""
    torch.manual_seed(0)
    config = Swin.Config(patch_size=2, embed_dim=8, depths=(1, 2, 1), num_heads=(1, 2, 2), window=window)
    encoder = Swin(config, image_size=image_size, in_channels=3)
    sizes = {"decoder_dim": 16, "decoder_heads": 2, "mask_ratio": 0.5}
    return GreenMIM(GreenMIM.Config(**sizes | options), encoder)


def batch(method: GreenMIM, count=3):
    side = method.encoder.image_size
    return torch.randn(count, 3, side, side, generator=seeded()), method.sample_mask(count, seeded())


@pytest.mark.parametrize("side", [7, 12])
def test_masks_are_the_official_ones_from_the_official_stream(side):
    config = Swin.Config(embed_dim=4, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window=side)
    encoder = Swin(config, image_size=32 * side, in_channels=3)
    ours, official = (
        GreenMIM(GreenMIM.Config(decoder_dim=4, decoder_heads=1, decoder=name), encoder)
        for name in ("corrected", "official")
    )
    for method in (ours, official):
        check_cell_masks(method, f"greenmim_{side}x{side}_0.75")
    for seed, orders in enumerate(read_arrays("mask_exact_a")[0][f"greenmim_{side}x{side}_0.75_ids_restore"]):
        generator = seeded(seed)
        for order in orders:
            assert torch.equal(official.sample_mask(2, generator)[1].flatten(), order)


def test_masks_have_the_official_distribution():
    check_cell_distribution(build(image_size=56, window=7, mask_ratio=0.75), "GreenMIM")


@pytest.mark.parametrize("case", ["A", "B"])
def test_pretraining_has_the_official_rates(case):
    check_pretraining("greenmim", case)


def test_pretraining_decays_the_official_parameters():
    check_groups("greenmim")


def test_the_official_decoder_reads_other_cells_than_the_corrected_one():
    """The same weights and the same mask; by hand, which token each visible cell gets."""
    official, corrected = build(decoder="official").eval(), build().eval()
    corrected.load_state_dict(official.state_dict())
    images, places = batch(official)
    mask = official.masked_cells(places)
    tokens, seen = [], {}
    for name, method, drawn in (("official", official, places), ("corrected", corrected, mask)):
        method.decode = lambda x, name=name: seen.update({name: x})
        method.predict(images, drawn)
        tokens.append(method.project(method.encode(images, drawn)))
    assert torch.equal(*tokens)
    visible = (~mask[0]).flatten().nonzero().flatten()
    assert torch.equal(seen["corrected"][:, visible], tokens[0])
    order = places[0].flatten()[visible]
    assert not torch.equal(order, torch.arange(len(visible)))
    assert torch.equal(seen["official"][:, visible], tokens[0][:, order])
    for x in seen.values():
        assert torch.equal(x[:, mask[0].flatten()], corrected.mask_token.expand(3, int(mask[0].sum()), -1))


def test_pictures_of_the_official_decoder_start_from_a_plain_mask():
    official = build(decoder="official").eval()
    images, places = batch(official)
    mask = official.masked_cells(places)
    rebuilt, masked = official.reconstruct(images, mask), mask_at_pixels(mask, images)
    assert torch.equal(rebuilt.masked_fill(masked, 0), images.masked_fill(masked, 0))
    assert not torch.isclose(rebuilt, images)[masked.expand_as(images)].all()


def test_images_may_have_masks_of_their_own():
    method = build().eval()
    images, _ = batch(method)
    masks = torch.cat([method.sample_mask(1, seeded(seed)) for seed in range(3)])
    together = method.predict(images, masks)
    singly = torch.cat([method.predict(images[i : i + 1], masks[i : i + 1]) for i in range(3)])
    assert not torch.equal(masks[0], masks[1])
    assert torch.allclose(together, singly, atol=1e-5)
    masks[0] = False
    with pytest.raises(InputError, match="different numbers of cells"):
        method.predict(images, masks)


def test_the_loss_is_that_of_the_masked_cells():
    method = build(norm_pixels=False)
    images, mask = batch(method)
    target = method.target(images)
    assert target.shape == (3, 4, 4, 192)
    assert torch.equal(target[1, 2, 1, :6], images[1, :, 16, 8:10].T.flatten())
    assert method.loss(torch.where(mask.unsqueeze(-1), target, 7.0), target, mask).item() == 0
    assert method.loss(target + 2, target, mask).item() == pytest.approx(4)
    cells = build().target(images)
    assert torch.allclose(cells.var(-1), torch.ones(3, 4, 4), atol=1e-3)


def test_masked_pixels_are_neither_seen_nor_computed(sees_only_the_visible):
    method = build().eval()
    images, mask = batch(method)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)
    sizes, block = [], method.encoder.body.layers[0].blocks[0]
    block.mlp.fc1.register_forward_hook(lambda _, x, y: sizes.append(y.shape[:-1].numel()))
    method.predict(images, mask)
    assert sizes == [3 * 16 * 16 // 2]


@pytest.mark.parametrize("decoder", ["corrected", "official"])
def test_everything_trains(decoder, reaches_every_parameter, trains_in_bf16):
    method = build(decoder=decoder)
    reaches_every_parameter(method, *batch(method))
    trains_in_bf16(method, *batch(method))


def test_a_step_runs_without_values(trains_without_values):
    trains_without_values(build, (2, 3, 32, 32), (2, 4, 4))


def test_masks_may_have_any_grid_and_mask_everything():
    method = build().eval()
    check_any_grid(method, *batch(method))


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="masks everything of 16 cells"):
        build(mask_ratio=0.99)
    with pytest.raises(InputError, match="drop the masked cells of its last map; this vit cannot"):
        GreenMIM(GreenMIM.Config(), ViT(ViT.Config(embed_dim=8, depth=1, num_heads=1), image_size=32, in_channels=3))


def test_a_file_with_another_cell_is_refused():
    golden = read_golden(GOLDEN / "greenmim_swin_tiny.npz")
    golden.meta["config"]["final_patch"] = 16
    with pytest.raises(InputError, match=r"cells of 32 px here, not of 16 px"):
        compare(golden)
