"""MaskFeat: against the official code and a plain reference, and what it promises besides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers.official_values import (
    GOLDEN,
    build_official,
    check_block_masks,
    check_decay,
    check_gradients,
    check_initial_weights,
    check_rates,
    read_arrays,
    read_json,
    set_parameters,
    state_of,
)
from helpers.presets import resolved
from helpers.random_inputs import seeded
from mimbench.contract import InputError, NotSupported
from mimbench.convert import recognise, to_encoder, to_method
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench.harness.planning.build import build as build_model
from mimbench.masks import noise_mask
from mimbench.parity.golden import read_golden, setup_of
from mimbench_methods._hog import hog
from mimbench_methods.maskfeat import MaskFeat
from mimbench_tasks.finetune.task import Finetune

PARTS = {
    "mask_token": "mask_token",
    "pred_head.transforms.0.0": "encoder.body.norm",
    "pred_head.projections.0": "head",
}
"""Official names outside of the encoder -> here."""


def build(kind="vit", channels=3, position="relative", **options) -> MaskFeat:
    torch.manual_seed(0)
    if kind == "vit":
        config = ViT.Config(patch_size=4, embed_dim=16, depth=2, num_heads=2, position=position)
        encoder = ViT(config, image_size=16, in_channels=channels)
    else:
        config = Swin.Config(patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window=4)
        encoder = Swin(config, image_size=16, in_channels=channels)
    return MaskFeat(MaskFeat.Config(**{"cell_size": 2} | options), encoder)


def batch(method: MaskFeat, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(count, method.encoder.in_channels, 16, 16, generator=seeded())
    return images, method.sample_mask(count, seeded())


def plain_hog(image: np.ndarray, bins: int, cell: int) -> np.ndarray:
    """[H, W] -> [H / cell, W / cell, bins], pixel by pixel."""
    height, width = image.shape
    mirror = [[abs(i) if i < side else 2 * side - 2 - i for i in range(-1, side + 1)] for side in (height, width)]
    weights = {-1: 1, 0: 2, 1: 1}
    histograms = np.zeros((height // cell, width // cell, bins))
    for row in range(height):
        for column in range(width):
            dx = dy = 0.0
            for step, weight in weights.items():
                right, above = mirror[0][row + 1 + step], mirror[1][column + 1 + step]
                dx += weight * (image[right, mirror[1][column]] - image[right, mirror[1][column + 2]])
                dy += weight * (image[mirror[0][row], above] - image[mirror[0][row + 2], above])
            degrees = math.degrees(math.atan2(dx, dy)) % 180
            histograms[row // cell, column // cell, int(degrees // (180 / bins))] += math.sqrt(dx * dx + dy * dy)
    return histograms


@pytest.mark.parametrize(("bins", "cell"), [(9, 4), (4, 2), (12, 8)])
def test_histograms_are_those_of_a_plain_reference(bins, cell):
    # Multiples of 1 / 64, whose sums are exact: at a mirrored edge a gradient is 0, and rounding would choose its bin.
    images = (64 * torch.randn(2, 2, 8, 16, generator=seeded())).round() / 64
    features = hog(images, bins, cell).numpy()
    assert features.shape == (2, 2, bins, 8 // cell, 16 // cell)
    for index in np.ndindex(2, 2):
        assert np.allclose(features[index].transpose(1, 2, 0), plain_hog(images[index].numpy(), bins, cell), atol=1e-4)


def test_histograms_of_8_bit_images_are_the_official_ones_to_the_last_bit():
    arrays, _ = read_arrays("maskfeat_hog_8bit")
    histograms = torch.nn.functional.normalize(hog(arrays["input/image"], 9, 8), dim=2)
    assert torch.equal(histograms, arrays["aux/hog"])


def test_official_weights_give_the_official_step():
    arrays, meta = read_arrays("maskfeat_vit_tiny")
    method = build_official(meta)
    set_parameters(method, state_of(arrays, "param", PARTS))
    images, mask = arrays["input/image"], arrays["input/mask"].bool()
    target, prediction = method.target(images), method.predict(images, mask)
    assert torch.equal(target.flatten(1, 2), arrays["aux/target_all"])
    assert torch.allclose(prediction.flatten(1, 2), arrays["out/prediction"], rtol=0, atol=1e-5)
    loss = method(images, mask).loss
    assert loss.item() == pytest.approx(arrays["out/loss_f64"].item(), rel=5e-7)
    loss.backward()
    check_gradients(method, arrays, PARTS)


def test_initial_weights_are_distributed_as_the_official_ones():
    torch.manual_seed(0)
    config = ViT.Config(patch_size=16, embed_dim=192, depth=2, num_heads=3, position="learned")
    method = MaskFeat(MaskFeat.Config(), ViT(config, image_size=224, in_channels=3))
    check_initial_weights(method, read_json("init_stats_b")["maskfeat"], PARTS)


@pytest.mark.parametrize(("grid", "name"), [(14, "maskfeat_14x14_78_15"), (7, "maskfeat_7x7_20_4")])
def test_masks_are_the_official_ones_from_the_official_stream(monkeypatch, grid, name):
    config = ViT.Config(patch_size=16, embed_dim=8, depth=1, num_heads=2, position="learned")
    method = MaskFeat(MaskFeat.Config(), ViT(config, image_size=16 * grid, in_channels=3))
    check_block_masks(monkeypatch, method, name)


@pytest.mark.parametrize("case", ["A", "B"])
def test_pretraining_and_fine_tuning_have_the_official_rates(case):
    official = read_json("lr_schedule_b")
    check_rates(resolved("imagenet-vit-base", "maskfeat").pretrain, official[f"maskfeat_pretrain_8shards/{case}"])
    tuned = Finetune.Config(**Finetune.protocols["maskfeat-vit-base"].options)
    check_rates(tuned.train, official[f"maskfeat_finetune/{case}"])


def test_pretraining_decays_the_official_parameters():
    check_decay(
        build_official(read_arrays("maskfeat_vit_tiny")[1]), read_json("decay_groups_b")["maskfeat_pretrain"], PARTS
    )


def test_the_target_holds_a_patchs_normalised_histograms():
    method = build()
    images, _ = batch(method)
    target = method.target(images)
    assert target.shape == (3, 4, 4, 3 * 9 * 4)
    patch = target[1, 2, 3].view(3, 9, 2, 2)
    for channel in range(3):
        cells = plain_hog(images[1, channel].numpy(), 9, 2)[4:6, 6:8]
        cells = cells / np.linalg.norm(cells, axis=-1, keepdims=True)
        assert np.allclose(patch[channel].permute(1, 2, 0).numpy(), cells, atol=1e-5)


def test_colour_and_norm_are_choices():
    images, _ = batch(build())
    grey = build(colour="grey", norm="none").target(images)
    assert torch.equal(grey, build(channels=1, norm="none").target(images.mean(1, keepdim=True)))
    assert grey.shape == (3, 4, 4, 9 * 4)
    sums = build(norm="l1").target(images).unflatten(3, (3, 9, 4)).sum(4)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)


def test_edges_fall_into_the_bin_of_their_direction():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    across = hog(ramp, 9, 4)[0, 0].sum((1, 2))
    down = hog(ramp.mT, 9, 4)[0, 0].sum((1, 2))
    assert across.nonzero().tolist() == [[4]]
    assert down.nonzero().tolist() == [[0]]


def test_contrast_and_its_sign_do_not_matter_and_flat_patches_have_no_direction():
    method = build()
    images, _ = batch(method)
    target = method.target(images)
    assert torch.allclose(method.target(-3 * images + 1), target, atol=1e-5)
    assert torch.equal(method.target(torch.ones_like(images)), torch.zeros_like(target))


KINDS = ["vit", "swin"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", ["block", "random", "red-noise"])
def test_masked_pixels_do_not_reach_the_prediction(kind, mask, sees_only_the_visible):
    method = build(kind, mask=mask).eval()
    images, masked = batch(method)
    assert method.predict(images, masked).shape == method.target(images).shape
    sees_only_the_visible(lambda shown: method.predict(shown, masked), images, masked)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_trains(kind, reaches_every_parameter, trains_in_bf16):
    method = build(kind)
    reaches_every_parameter(method, *batch(method))
    trains_in_bf16(method, *batch(method))


def test_the_target_is_float32_under_autocast():
    method = build()
    images, _ = batch(method)
    expected = method.target(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(method.target(images), expected)


def test_the_loss_is_the_mean_over_masked_patches_of_the_batch():
    method = build()
    target, mask = torch.zeros(2, 4, 4, 108), torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 0], mask[1, 3, 3] = True, True
    prediction = torch.full_like(target, 9.0)
    prediction[mask] = 2.0
    prediction[1, 3, 3] = 1.0
    assert method.loss(prediction, target, mask).item() == pytest.approx((4 * 4 + 1) / 5)
    assert method.loss(prediction, target, torch.zeros_like(mask)).item() == 0


def test_masks_cover_their_share():
    random = build(mask="random").sample_mask(20, seeded())
    assert set(random.sum((1, 2)).tolist()) == {7}  # ceil(0.4 x 16)
    noise = build(mask="green-noise", noise_sigma=(0.6, 1.2)).sample_mask(20, seeded())
    assert torch.equal(noise, noise_mask(20, (4, 4), 0.4, seeded(), colour="green", sigma=(0.6, 1.2)))
    assert set(noise.sum((1, 2)).tolist()) == {7}
    small, large = (build(min_block=size).sample_mask(200, seeded()) for size in (1, 6))
    assert int(small.sum((1, 2)).max()) == int(large.sum((1, 2)).max()) == 6  # round(0.4 x 16)
    extent = [(mask.any(1).sum(1) * mask.any(2).sum(1)).float().mean() for mask in (small, large)]
    assert extent[0] > extent[1] + 1
    assert torch.equal(small, build().sample_mask(200, seeded()))  # a fifth of 6


def test_everything_of_two_dimensions_is_decayed_as_in_the_official_recipe():
    assert build().no_weight_decay() == set()


def test_it_predicts_no_pixels():
    method = build()
    with pytest.raises(NotSupported, match="does not predict pixels"):
        method.reconstruct(*batch(method))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell_size": 8}, "cell_size 8 px does not divide a patch of the encoder's last map, 4 px"),
        ({"cell_size": 3}, "cell_size 3 px"),
        ({"mask_ratio": 0.99}, "masks everything of 16 cells"),
        ({"min_block": 12, "mask_ratio": 0.9}, "no block of 12 cells fits"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(**options)


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_to_one_device(kind, on_fake_cuda, trains_without_values):
    method = build(kind)
    images, mask = batch(method)
    assert on_fake_cuda(method, images, mask).loss.device.type == "cuda"
    trains_without_values(lambda: build(kind), images.shape, mask.shape)


FASTMIM = {
    "mask": "random",
    "mask_ratio": 0.75,
    "masked": "colour",
    "init": "xavier",
    "decoder_depth": 1,
    "decoder_dim": 16,
    "decoder_heads": 2,
}


@pytest.mark.parametrize("kind", KINDS)
def test_fastmim_is_maskfeat_of_painted_images_with_a_decoder(kind):
    """Prediction and loss a second way: patches painted one by one, HOG by loops, and each block called by itself."""
    method = build(kind, **FASTMIM).eval()
    images, mask = batch(method)
    assert method.mask_token.shape == (1, 3, 1, 1)
    with torch.no_grad():
        painted, errors = images.clone(), []
        for image, row, column in mask.nonzero().tolist():
            for channel in range(3):
                painted[image, channel, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = method.mask_token[
                    0, channel
                ]
        features = method.encoder.features(painted)
        x = method.decoder.project(torch.cat((features.prefix, features.dense.flatten(2).mT), 1))
        for block in method.decoder.blocks:
            x = block(x)
        prediction = method.head(method.decoder.norm(x))[:, features.prefix.shape[1] :].view(3, 4, 4, -1)
        assert torch.allclose(method.predict(images, mask), prediction, atol=1e-5)
        for image, row, column in mask.nonzero().tolist():
            histograms = np.stack([plain_hog(channel.numpy().astype(float), 9, 2) for channel in images[image]])
            lengths = np.sqrt((histograms**2).sum(-1, keepdims=True))
            cells = (histograms / lengths)[:, row * 2 : row * 2 + 2, column * 2 : column * 2 + 2]
            target = cells.transpose(0, 3, 1, 2).reshape(-1)  # channels, then bins, then cells
            errors.append(((prediction[image, row, column].numpy() - target) ** 2).mean())
        assert len(errors) == 3 * 12
        assert method(images, mask).loss.item() == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_fastmim_trains_and_hides_masked_pixels(
    kind, sees_only_the_visible, reaches_every_parameter, trains_in_bf16, on_fake_cuda
):
    method = build(kind, **FASTMIM)
    images, mask = batch(method)
    reaches_every_parameter(method, images, mask)
    trains_in_bf16(method, images, mask)
    method.eval()
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)
    assert on_fake_cuda(build(kind, **FASTMIM), images, mask).loss.device.type == "cuda"
    assert method.no_weight_decay() == set()


def test_fastmims_initial_weights_are_maes():
    method = build("vit", position="sincos", **FASTMIM)
    for linear in (method.encoder.body.blocks[0].mlp.fc1, method.decoder.project, method.head):
        bound = (6 / sum(linear.weight.shape)) ** 0.5
        assert linear.weight.abs().max().item() == pytest.approx(bound, rel=0.05)
        assert not linear.bias.abs().sum()
    assert 0 < method.mask_token.abs().max() < 0.1


@pytest.mark.parametrize("options", [{"masked": "colour"}, {"init": "xavier"}])
def test_each_option_of_fastmim_stands_alone(options, reaches_every_parameter):
    method = build(**options)
    reaches_every_parameter(method, *batch(method))


@pytest.mark.parametrize("options", [{"decoder_dim": 64}, {"decoder_heads": 4}])
def test_a_decoder_without_blocks_has_no_options(options):
    with pytest.raises(ValueError, match="decoder_dim and decoder_heads are for a decoder_depth above 0"):
        build(**options)


def test_the_official_initial_weights_are_without_a_decoder():
    with pytest.raises(ValueError, match='init "official" is without a decoder; set init to "xavier"'):
        build(decoder_depth=1)


def test_heads_that_do_not_divide_the_decoder_are_refused():
    with pytest.raises(InputError, match="16 channels cannot be shared by 3 heads"):
        build(init="xavier", decoder_depth=1, decoder_dim=16, decoder_heads=3)


def test_the_official_checkpoint_is_read_whole():
    golden = read_golden(GOLDEN / "maskfeat_vit_tiny.npz")
    state = golden.group("param/")
    layout = recognise(state)
    assert layout.name == "maskfeat"
    method = build_model(setup_of(golden)[0])
    converted = to_method(state, layout, method)
    assert not converted.missing
    assert set(converted.left_out) == {"hogs.0.weight_x", "hogs.0.weight_y"}
    assert torch.equal(converted.state["head.bias"], state["pred_head.projections.0.bias"])
    encoder = to_encoder(state, layout, method.encoder)
    assert not encoder.missing
    assert torch.equal(encoder.state["body.norm.bias"], state["pred_head.transforms.0.0.bias"])
