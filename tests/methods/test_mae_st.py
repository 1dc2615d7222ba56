"""MAE-ST: its masks, predicted frames and decoder; its target against a computation cube by cube."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.learning import losses_on
from helpers.presets import resolved
from helpers.random_inputs import seeded
from mimbench.contract import InputConfig, InputError
from mimbench.encoders.video_vit import VideoViT, VideoViTConfig
from mimbench.testing import method_suite, parametrize_checks
from mimbench_methods.mae_st import MAEST, MAESTConfig

SMALL = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
ENCODER = {
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "position": "separate",
    "class_token": True,
}


def build(frames=4, **options) -> MAEST:
    torch.manual_seed(0)
    encoder = VideoViT(VideoViTConfig(**ENCODER), image_size=16, in_channels=3, frames=frames)
    return MAEST(MAESTConfig(**SMALL | options), encoder)


def clips(frames=4):
    return torch.randn(2, 3, frames, 16, 16, generator=seeded())


@parametrize_checks(
    method_suite(
        MAEST,
        SMALL,
        encoder=VideoViT,
        encoder_options=ENCODER,
        input_config=InputConfig(image_size=16, frames=4, mean=(0.5,), std=(0.5,)),
    )
)
def test_it_passes_the_checks_for_methods(check):
    check()


def test_masks_are_random_in_space_and_time_with_the_official_count():
    mask = build(frames=8).sample_mask(50, seeded())
    assert mask.shape == (50, 4, 4, 4)
    assert set(mask.flatten(1).sum(1).tolist()) == {58}  # int(64 x 0.1) = 6 stay visible
    assert len(set(mask[:, 0].flatten(1).sum(1).tolist())) > 1  # the count per frame is free


def test_the_predicted_frames_are_the_official_ones():
    assert build(frames=16).frames.tolist() == [0, 2, 4, 6, 8, 10, 12, 15]
    assert build(frames=16, predicted_frames=2).frames.tolist() == list(range(16))


@pytest.mark.parametrize(("predicted", "frames"), [(1, [3]), (2, [2, 3])])
def test_the_target_is_normalised_per_cube(predicted, frames):
    batch = clips()
    target = build(predicted_frames=predicted).target(batch)
    assert target.shape == (2, 2, 4, 4, predicted * 4 * 4 * 3)
    cube = batch[1][:, frames, 4:8, 12:16].double().numpy().transpose(1, 2, 3, 0).ravel()
    expected = (cube - cube.mean()) / np.sqrt(cube.var(ddof=1) + 1e-6)
    np.testing.assert_allclose(target[1, 1, 1, 3].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_a_perfect_prediction_is_the_clip(norm_pixels):
    method, batch = build(norm_pixels=norm_pixels, predicted_frames=2), clips()
    method.predict = lambda clips, mask: method.target(clips)
    restored = method.reconstruct(batch, method.sample_mask(2, seeded()))
    torch.testing.assert_close(restored, batch, rtol=1e-4, atol=1e-4)


def test_a_frame_that_is_not_predicted_repeats_the_other_one_of_its_cube():
    method, batch = build(mask_ratio=0.5), clips()
    mask = torch.ones(2, 2, 4, 4, dtype=torch.bool)
    mask[:, 0, 0, 0] = False
    method.predict = lambda clips, mask: method.target(clips)
    restored = method.reconstruct(batch, mask)
    torch.testing.assert_close(restored[:, :, 2, 4:], batch[:, :, 3, 4:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored[:, :, :2, :4, :4], batch[:, :, :2, :4, :4])
    assert "repeat one that is" in method.reconstruction_note
    assert "repeat" not in build(predicted_frames=2).reconstruction_note


def test_the_decoder_reads_place_and_time():
    method = build()
    tokens = torch.zeros(1, 32, 8)
    out = method.decode(tokens)
    assert out.shape == (1, 32, 8)
    assert len(out[0].round(decimals=5).unique(dim=0)) == 32


def test_it_learns_a_clip():
    method = build(mask_ratio=0.5, norm_pixels=False)
    still = torch.nn.functional.interpolate(
        torch.randn(4, 3, 1, 4, 4, generator=seeded()), (4, 16, 16), mode="trilinear"
    )
    losses = losses_on(method, still, method.sample_mask(4, seeded()), 100)
    assert losses[-1] < 0.3 * losses[0]


def test_the_recipe_is_the_official_one():
    recipe = resolved("kinetics400-vit-base", "mae-st")
    assert (recipe.encoder_config.position, recipe.encoder_config.class_token) == ("separate", True)
    assert (recipe.pretrain.epochs, recipe.pretrain.base_lr, recipe.pretrain.clip_grad) == (400, 1.6e-3, 0.02)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"predicted_frames 3 must divide the encoder's cubes of 2 frames"):
        build(predicted_frames=3)
