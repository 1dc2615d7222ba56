"""UM-MAE against a second formulation with plain loops, and what it promises besides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.encoders.convnet import ResNet
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench_methods._compact_grid import MASKED, TOKEN, VISIBLE
from mimbench_methods.mae import MAE
from mimbench_methods.um_mae import UMMAE

DECODER = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
SIZE = 32


def build(kind="swin", **options) -> UMMAE:
    torch.manual_seed(0)
    if kind == "vit":
        vit = ViT.Config(patch_size=4, embed_dim=16, depth=2, num_heads=2, position="sincos")
        encoder = ViT(vit, image_size=SIZE, in_channels=3)
    else:
        swin = Swin.Config(patch_size=2, embed_dim=8, depths=(1, 2, 1), num_heads=(2, 2, 4), window=4)
        encoder = Swin(swin, image_size=SIZE, in_channels=3)
    return UMMAE(UMMAE.Config(**DECODER, **options), encoder)


def batch(method):
    return torch.randn(3, 3, SIZE, SIZE, generator=seeded(1)), method.sample_mask(3, seeded())


@pytest.mark.parametrize(("kind", "cell", "stay", "visible"), [("swin", 4, 16, 12), ("vit", 4, 16, 12)])
def test_masks_have_the_official_numbers(kind, cell, stay, visible):
    method = build(kind)
    mask = method.sample_mask(40, seeded())
    assert method.pixel_patch == cell
    assert mask.shape == (40, 8, 8)
    assert (mask < MASKED).sum((1, 2)).tolist() == [stay] * 40
    assert (mask == VISIBLE).sum((1, 2)).tolist() == [visible] * 40
    squares = (mask < MASKED).unflatten(2, (4, 2)).unflatten(1, (4, 2)).sum((2, 4))
    assert (squares == 1).all()
    assert torch.equal(method.masked_cells(mask), mask == MASKED)
    odd = build(kind, token_ratio=0.3).sample_mask(2, seeded())
    assert (odd == VISIBLE).sum((1, 2)).tolist() == [11, 11]  # int(0.7 x 16)
    assert not (build(kind, token_ratio=0.0).sample_mask(9, seeded()) == TOKEN).any()
    share = (method.sample_mask(3000, seeded()) == TOKEN).float().mean(0)
    assert (share - 1 / 16).abs().max() < 0.025


def predicted_by_loops(method: UMMAE, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The pixels of each cell of one image, [64, 48]: the cells that stay are cut out and put side by side."""
    cell, side = method.pixel_patch, 4
    compact, masked = torch.zeros(3, SIZE // 2, SIZE // 2), torch.zeros(side, side, dtype=torch.bool)
    places = []
    for row in range(8):
        for column in range(8):
            if mask[row, column] == MASKED:
                continue
            y, x = row // 2 * cell, column // 2 * cell
            cut = image[:, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
            compact[:, y : y + cell, x : x + cell] = cut
            masked[row // 2, column // 2] = mask[row, column] == TOKEN
    for y in range(side):
        for x in range(side):
            (place,) = (
                row * 8 + column
                for row in (2 * y, 2 * y + 1)
                for column in (2 * x, 2 * x + 1)
                if mask[row, column] != MASKED
            )
            places.append(place)
    token = method.encoder_token - method.encoder_token.mean()
    token = token / (token.square().mean() + 1e-5).sqrt()
    dense = method.encoder.encode_masked(compact[None], masked[None], token)[0]
    tokens = method.mask_token[0].expand(64, -1).clone()
    for y in range(side):
        for x in range(side):
            outputs = method.project(dense[:, y // 2, x // 2]).view(-1, 2, 2)
            tokens[places[y * side + x]] = outputs[:, y % 2, x % 2]
    return method.head(method.norm(method.blocks(tokens[None] + method.positions)))[0]


def test_prediction_and_loss_are_those_of_the_cells_put_side_by_side():
    method = build().eval()
    images, mask = batch(method)
    with torch.no_grad():
        expected = torch.stack([predicted_by_loops(method, *one) for one in zip(images, mask, strict=True)])
        prediction = method.predict(images, mask)
        assert torch.allclose(prediction.flatten(1, 2), expected, atol=1e-5)
        errors = []
        for image, cells, predicted in zip(images, mask.flatten(1), expected, strict=True):
            for index in range(64):
                row, column = divmod(index, 8)
                cut = image[:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4].permute(1, 2, 0).flatten()
                normed = (cut - cut.mean()) / (cut.var() + 1e-6).sqrt()
                if cells[index] == MASKED:
                    errors.append((predicted[index] - normed).square().mean())
        assert len(errors) == 3 * 48
        assert method(images, mask).loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


class Renamed(Swin):
    kind = "renamed"


class Unnormed(Swin):
    can = Swin.can - {"normed-tokens"}


def test_the_mask_token_is_normalised_if_the_encoder_says_that_its_tokens_are():
    method = build().eval()
    images, mask = batch(method)
    with torch.no_grad():
        expected = method.predict(images, mask)
        method.encoder.__class__ = Renamed
        assert torch.equal(method.predict(images, mask), expected)
        method.encoder.__class__ = Unnormed
        token = method.encoder_token
        assert (method.predict(images, mask) - expected).abs().max() > 1e-3
        token.copy_(F.layer_norm(token, token.shape[-1:]))
        assert torch.allclose(method.predict(images, mask), expected, atol=1e-6)


def test_a_vit_without_second_masking_is_mae():
    method = build("vit", token_ratio=0.0).eval()
    mae = MAE(MAE.Config(**DECODER), method.encoder).eval()
    mae.load_state_dict(method.state_dict(), strict=True)
    images, mask = batch(method)
    with torch.no_grad():
        assert torch.allclose(method.predict(images, mask), mae.predict(images, mask == MASKED), atol=1e-6)
        assert method(images, mask).loss.item() == pytest.approx(mae(images, mask == MASKED).loss.item(), rel=1e-6)


def test_a_vits_mask_tokens_stand_at_their_positions():
    """The same with images whose tokens are the mask token: its patch embedding has no weights."""
    method = build("vit").eval()
    images, mask = batch(method)
    with torch.no_grad():
        expected = method.predict(images, mask)
        embedded = method.encoder.embed(images)
        token_cells = (mask == TOKEN).unsqueeze(-1)
        method.encoder.embed = lambda images: torch.where(token_cells, method.encoder_token, embedded)
        visible = torch.where(mask == TOKEN, VISIBLE, mask)
        assert torch.allclose(method.predict(images, visible.to(mask.dtype)), expected, atol=1e-6)


def pasted(method: UMMAE, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The images with the predictions of MASKED cells, brought to each cell's own mean and variance, one by one."""
    cell, result = method.pixel_patch, images.clone()
    predictions = method.predict(images, mask)
    for index, row, column in (mask == MASKED).nonzero().tolist():
        at = index, slice(None), slice(row * cell, (row + 1) * cell), slice(column * cell, (column + 1) * cell)
        true = images[at]
        pixels = predictions[index, row, column].view(cell, cell, 3).permute(2, 0, 1)
        result[at] = pixels * (true.var() + 1e-6).sqrt() + true.mean()
    return result


@pytest.mark.parametrize("kind", ["swin", "vit"])
def test_pictures_with_a_bool_mask_show_the_prediction_of_the_visible_cells(kind):
    method = build(kind, token_ratio=0.0).eval()
    images, mask = batch(method)
    cells = method.masked_cells(mask)
    assert torch.equal(cells, mask == MASKED)
    with torch.no_grad():
        expected = pasted(method, images, mask)
        assert torch.allclose(method.reconstruct(images, cells), expected, atol=1e-5)
        finer = cells.repeat_interleave(2, 1).repeat_interleave(2, 2)
        assert torch.allclose(method.reconstruct(images, finer), expected, atol=1e-5)
        assert method.loss(method.predict(images, cells), method.target(images), cells) == method(images, mask).loss


def test_of_a_square_with_several_visible_cells_the_first_is_seen():
    method = build().eval()
    images = batch(method)[0]
    cells = torch.zeros(3, 8, 8, dtype=torch.bool)
    cells[:, 0, 0] = True
    expected = torch.full((3, 8, 8), MASKED, dtype=torch.uint8)
    expected[:, ::2, ::2] = VISIBLE
    expected[:, 0, 0], expected[:, 0, 1] = MASKED, VISIBLE
    with torch.no_grad():
        whole = pasted(method, images, expected)
        picture = images.clone()
        picture[:, :, :4, :4] = whole[:, :, :4, :4]
        assert torch.allclose(method.reconstruct(images, cells), picture, atol=1e-5)


@pytest.mark.parametrize("ratio", [0.0, 0.25])
def test_no_masked_pixel_reaches_a_picture_of_a_wholly_masked_square(ratio, sees_only_the_visible):
    method = build(token_ratio=ratio).eval()
    images = batch(method)[0]
    cells = torch.ones(3, 8, 8, dtype=torch.bool)
    cells[:, 2:4, 2:4] = cells[:, 7, 7] = False
    seen = torch.zeros_like(cells)
    seen[:, 2, 2] = seen[:, 7, 7] = True
    sees_only_the_visible(lambda shown: method.predict(shown, cells), images, ~seen)


def test_a_swin_with_four_stages_reconstructs_one_masked_patch():
    """As in the plan of a task that reconstructs: cells have 16 px, and the mask is on the grid of patches of 4 px."""
    sizes = Swin.Config(patch_size=4, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(2, 2, 2, 2), window=2)
    method = UMMAE(UMMAE.Config(**DECODER), Swin(sizes, image_size=64, in_channels=3)).eval()
    images, patches = torch.randn(1, 3, 64, 64, generator=seeded(1)), torch.zeros(1, 16, 16, dtype=torch.bool)
    patches[0, 0, 0] = True
    mask = torch.full((1, 4, 4), MASKED, dtype=torch.uint8)
    mask[:, ::2, ::2] = VISIBLE
    mask[:, 0, 0], mask[:, 0, 1] = MASKED, VISIBLE
    with torch.no_grad():
        expected = images.clone()
        expected[:, :, :4, :4] = pasted(method, images, mask)[:, :, :4, :4]
        assert torch.allclose(method.reconstruct(images, patches), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["swin", "vit"])
def test_neither_masked_cells_nor_tokens_reach_the_prediction(kind, sees_only_the_visible):
    method = build(kind).eval()
    images, mask = batch(method)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask != VISIBLE)


@pytest.mark.parametrize("kind", ["swin", "vit"])
@pytest.mark.parametrize("ratio", [0.0, 0.25])
def test_everything_trains(kind, ratio, reaches_every_parameter, trains_in_bf16):
    method = build(kind, token_ratio=ratio)
    reaches_every_parameter(method, *batch(method))
    trains_in_bf16(method, *batch(method))
    assert method.no_weight_decay() == set()
    assert ("encoder_token" in dict(method.named_parameters())) == (ratio > 0)


@pytest.mark.parametrize("kind", ["swin", "vit"])
def test_forward_keeps_to_one_device(kind, on_fake_cuda):
    method = build(kind)
    assert on_fake_cuda(method, *batch(method)).loss.device.type == "cuda"


def test_the_cell_size_is_that_of_the_options():
    method = build(cell_size=8).eval()
    images, mask = batch(method)
    assert mask.shape == (3, 4, 4)
    assert method.predict(images, mask).shape == (3, 4, 4, 8 * 8 * 3)
    assert F.mse_loss(method.target(images), method.target(images)) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(mask_ratio=0.6), "one of each 2 x 2 cells stays, so mask_ratio is 0.75"),
        (lambda: build(initial_mask_ratio=0.5), "has no initial_mask_ratio"),
        (
            lambda: build(cell_size=3),
            r"method.cell_size 3 px must be a multiple of the encoder's patch, 2 px, and divide",
        ),
        (lambda: build(cell_size=16), "divide its stride, 8 px"),
        (lambda: build(token_ratio=1.0), "less than 1"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises((InputError, ValueError), match=message):
        make()


def test_an_image_whose_half_does_not_fit_is_refused():
    swin = Swin.Config(patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 4), window=7)
    with pytest.raises(InputError, match=r"input\.image_size 28 px: um-mae encodes images of half the side"):
        UMMAE(UMMAE.Config(**DECODER), Swin(swin, image_size=28, in_channels=3))


def test_an_encoder_that_mixes_patches_is_not_for_it():
    assert not UMMAE.encoder_needs <= ResNet.can
    assert UMMAE.encoder_needs <= Swin.can & ViT.can
