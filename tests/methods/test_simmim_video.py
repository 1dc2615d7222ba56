"""SimMIM on clips: masks, loss and prediction, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.contract import InputConfig, InputError
from mimbench.encoders.video_vit import VideoViT, VideoViTConfig
from mimbench.testing import method_suite, parametrize_checks
from mimbench_methods.simmim_video import SimMIMVideo, SimMIMVideoConfig

ENCODER = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
SMALL = {"mask_patch_size": 8}


def build(frames=8, **options) -> SimMIMVideo:
    torch.manual_seed(0)
    encoder = VideoViT(VideoViTConfig(**ENCODER), image_size=16, in_channels=1, frames=frames)
    return SimMIMVideo(SimMIMVideoConfig(**SMALL | options), encoder)


@parametrize_checks(
    method_suite(
        SimMIMVideo,
        SMALL,
        encoder=VideoViT,
        encoder_options=ENCODER,
        input_config=InputConfig(image_size=16, frames=4, mean=(0.5,), std=(0.5,)),
    )
)
def test_it_passes_the_checks_for_methods(check):
    check()


@pytest.mark.parametrize(("masking", "count"), [("random", 10), ("tube", 8), ("cuboid", 10)])
def test_masks_have_the_ratio(masking, count):
    mask = build(masking=masking).sample_mask(6, seeded())
    assert mask.shape == (6, 4, 2, 2)
    assert set(mask.flatten(1).sum(1).tolist()) == {count}  # 0.6 of 16 cells, or of the 4 of each frame
    assert masking != "tube" or bool((mask == mask[:, :1]).all())


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_loss_is_the_mean_error_of_masked_pixels(loss):
    method = build(loss=loss)
    clips = torch.randn(3, 1, 8, 16, 16, generator=seeded())
    mask = method.sample_mask(3, seeded(1))
    error = (method.reconstruct(clips, mask) - clips).abs()
    at_pixels = mask.repeat_interleave(2, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)[:, None]
    assert (error[~at_pixels] == 0).all()
    torch.testing.assert_close(method(clips, mask).loss, error[at_pixels].pow(int(loss[1])).mean())


def test_initial_weights_are_those_that_the_option_names():
    official, plain, xavier = (
        build(init=init).encoder.body.blocks[0].attn.qkv.weight.std() for init in ("official", "encoder", "xavier")
    )
    assert official < plain < 0.021
    torch.testing.assert_close(xavier.item(), (2 / (16 + 3 * 16)) ** 0.5, rtol=0.1, atol=0)


def test_the_prediction_depends_on_visible_pixels_alone():
    method = build().eval()
    clips, mask = torch.randn(2, 1, 8, 16, 16, generator=seeded()), method.sample_mask(2, seeded())
    at_pixels = mask.repeat_interleave(2, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)[:, None]
    torch.testing.assert_close(method.predict(clips, mask), method.predict(clips.masked_fill(at_pixels, 7.0), mask))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_frames": 3}, "method.mask_frames 3 must divide the 8 frames"),
        ({"mask_frames": 1}, "a multiple of the encoder's cube, 2 frames"),
        ({"mask_patch_size": 6}, "does not divide the image"),
        ({"masking": "tube", "mask_ratio": 0.1}, "masks nothing"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        build(**options)
