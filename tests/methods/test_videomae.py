"""VideoMAE: official schedule, decayed parameters, masks and sizes; its target against a computation cube by cube."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.learning import losses_on
from helpers.official_values import check_decay, check_rates, read_json
from helpers.other_sizes import other_sizes
from helpers.presets import resolved
from helpers.random_inputs import seeded
from mimbench.contract import InputConfig, InputError
from mimbench.convert import recognise, to_method
from mimbench.encoders.video_vit import VideoViT, VideoViTConfig
from mimbench.harness.planning.build import build as build_setup
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden, setup_of
from mimbench.testing import method_suite, parametrize_checks
from mimbench_methods.videomae import VideoMAE, VideoMAEConfig

GOLDEN_FILE = Path(__file__).parents[1] / "golden" / "videomae_vit_tiny.npz"
PARTS = {
    "encoder_to_decoder.": "project.",
    "decoder.": "",
    "mask_token": "mask_token",
    "encoder.": "encoder.body.",
}
SMALL = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
ENCODER = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


def build(frames=4, channels=3, **options) -> VideoMAE:
    torch.manual_seed(0)
    encoder = VideoViT(VideoViTConfig(**ENCODER), image_size=16, in_channels=channels, frames=frames)
    return VideoMAE(VideoMAEConfig(**SMALL | options), encoder)


@parametrize_checks(
    method_suite(
        VideoMAE,
        SMALL,
        encoder=VideoViT,
        encoder_options=ENCODER,
        input_config=InputConfig(image_size=16, frames=4, mean=(0.5,), std=(0.5,)),
    )
)
def test_it_passes_the_checks_for_methods(check):
    check()


def test_another_size_passes_too(tmp_path):
    config = {"img_size": 24, "num_frames": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "decoder_depth": 1}
    mask = torch.zeros(2, 4, 3, 3, dtype=torch.int64)
    mask[:, :, :2] = 1
    inputs = {"video": torch.randn(2, 3, 8, 24, 24, generator=seeded()), "mask": mask}
    result = compare(read_golden(other_sizes("videomae_vit_tiny", config, inputs, tmp_path / "other.npz")))
    assert [row.quantity for row in result.rows if not row.passed] == []


def test_the_official_script_decays_the_same_parameters():
    method = build_setup(setup_of(read_golden(GOLDEN_FILE))[0])
    check_decay(method, read_json("decay_groups_b")["videomae_pretrain"], PARTS)


@pytest.mark.parametrize("case", ["A", "B"])
@pytest.mark.parametrize("preset", ["kinetics400-vit-base", "ssv2-vit-base"])
def test_the_rate_of_each_step_is_the_official_one(preset, case):
    official = read_json("lr_schedule_b")[f"videomae_pretrain_k400_ssv2/{case}"]
    check_rates(resolved(preset, "videomae").pretrain, official)


def test_masks_are_tubes_with_the_official_count():
    method = build(mask_ratio=0.9)
    mask = method.sample_mask(5, seeded())
    assert mask.shape == (5, 2, 4, 4)
    assert torch.equal(mask[:, 0], mask[:, 1])
    assert set(mask[:, 0].flatten(1).sum(1).tolist()) == {14}  # 0.9 x 16, rounded down
    scattered = build(mask="random").sample_mask(5, seeded())
    assert set(scattered.flatten(1).sum(1).tolist()) == {28}
    assert not torch.equal(scattered[:, 0], scattered[:, 1])


def test_the_target_is_normalised_per_cube_and_colour():
    method = build()
    clips = torch.randn(2, 3, 4, 16, 16, generator=seeded())
    target = method.target(clips)
    assert target.shape == (2, 2, 4, 4, 2 * 4 * 4 * 3)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    cube = clips[1, :, 2:4, 4:8, 12:16].double().numpy().transpose(1, 2, 3, 0) * std + mean
    flat = cube.reshape(-1, 3)
    expected = (flat - flat.mean(0)) / (flat.std(0, ddof=1) + 1e-6)
    np.testing.assert_allclose(target[1, 1, 1, 3].numpy(), expected.ravel(), rtol=1e-4, atol=1e-5)


def test_a_perfect_prediction_is_the_clip():
    for norm_pixels in (True, False):
        method = build(norm_pixels=norm_pixels)
        clips = torch.randn(2, 3, 4, 16, 16, generator=seeded())
        method.predict = lambda clips, mask, method=method: method.target(clips)
        restored = method.reconstruct(clips, method.sample_mask(2, seeded()))
        torch.testing.assert_close(restored, clips, rtol=1e-4, atol=1e-4)


def test_it_learns_a_clip():
    method = build(mask_ratio=0.5, norm_pixels=False)
    clips = torch.randn(4, 3, 1, 4, 4, generator=seeded()).repeat_interleave(4, 2)
    clips = torch.nn.functional.interpolate(clips, (4, 16, 16), mode="trilinear")
    losses = losses_on(method, clips, method.sample_mask(4, seeded()), 40)
    assert losses[-1] < 0.3 * losses[0]


def test_a_checkpoint_without_a_weight_names_it():
    golden = read_golden(GOLDEN_FILE)
    weights = golden.group("param/")
    del weights["encoder.blocks.0.attn.q_bias"]
    method = build_setup(setup_of(golden)[0])
    converted = to_method(weights, recognise(weights), method)
    assert set(converted.missing) == {"encoder.body.blocks.0.attn.q_bias", "pixel_mean", "pixel_std"}


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="masks nothing"):
        build(mask_ratio=0.05)
    golden = read_golden(GOLDEN_FILE)
    with pytest.raises(InputError, match="the official decoder has LayerScale too"):
        VideoMAE.official.setup({**golden.config, "init_values": 0.1}, golden.meta)
