"""The ViT that is applied frame by frame, and image weights that a ViT for clips starts from."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.encoders.frame_vit import FrameViT
from mimbench.encoders.video_vit import VideoViT, VideoViTConfig
from mimbench.encoders.vit import ViT
from mimbench.encoders.vit_config import ViTConfig
from mimbench.harness.planning.build import assemble
from mimbench.testing import encoder_suite, parametrize_checks
from mimbench_methods.supervised import Supervised

SMALL = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


def image_vit(position="learned", **options) -> ViT:
    torch.manual_seed(0)
    encoder = ViT(ViTConfig(**SMALL, position=position, **options), image_size=8, in_channels=1)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


def video_vit(frames=4, **options) -> VideoViT:
    config = VideoViTConfig(**SMALL | {"position": "separate"} | options)
    return VideoViT(config, image_size=8, in_channels=1, frames=frames).eval()


def start(encoder: VideoViT, images: ViT) -> VideoViT:
    encoder.load_state_dict(encoder.adapt_weights(images.state_dict()))
    return encoder


@parametrize_checks(encoder_suite(FrameViT, {**SMALL, "position": "learned"}, image_size=8, channels=1, frames=4))
def test_it_passes_the_checks_for_encoders(check):
    check()


def test_each_frame_is_encoded_as_an_image():
    images = image_vit()
    clips = FrameViT(images.config, image_size=8, in_channels=1, frames=3).eval()
    clips.load_state_dict(images.state_dict())
    batch = torch.randn(2, 1, 3, 8, 8, generator=seeded())
    features = clips.features(batch)
    each = [images.features(batch[:, :, frame]) for frame in range(3)]
    assert clips.grid == (3, 2, 2)
    for frame in range(3):
        torch.testing.assert_close(features.dense[:, :, frame], each[frame].dense)
    torch.testing.assert_close(features.pooled, torch.stack([one.pooled for one in each]).mean(0))
    torch.testing.assert_close(features.pool("token"), torch.stack([one.pool("token") for one in each]).mean(0))


def test_the_order_of_frames_changes_no_pooled_feature():
    torch.manual_seed(0)
    encoder = FrameViT(ViTConfig(**SMALL, position="learned"), image_size=8, in_channels=1, frames=4).eval()
    clips = torch.randn(2, 1, 4, 8, 8, generator=seeded())
    moved = encoder.features(clips[:, :, [2, 0, 3, 1]])
    torch.testing.assert_close(encoder.features(clips).pooled, moved.pooled)


def test_images_are_refused():
    with pytest.raises(InputError, match=r"takes clips; set input\.frames .* or encoder\.name to vit"):
        FrameViT(ViTConfig(**SMALL), image_size=8, in_channels=1)


@pytest.mark.parametrize("rule", ["mean", "centre"])
@pytest.mark.parametrize("position", ["learned", "sincos"])
def test_still_clips_get_the_features_of_the_image(rule, position):
    images = image_vit(position, class_token=False, layer_scale=0.3)
    clips = start(video_vit(inflation=rule, layer_scale=0.1), images)
    batch = torch.randn(2, 1, 8, 8, generator=seeded())
    expected = images.features(batch)
    features = clips.features(batch.unsqueeze(2).expand(-1, -1, 4, -1, -1))
    for time in range(2):
        torch.testing.assert_close(features.dense[:, :, time], expected.dense, rtol=1e-4, atol=1e-5)


def test_a_class_token_has_its_position():
    images = image_vit()
    clips = start(video_vit(frames=2, class_token=True), images)
    batch = torch.randn(2, 1, 8, 8, generator=seeded())
    expected, features = images.features(batch), clips.features(batch.unsqueeze(2).expand(-1, -1, 2, -1, -1))
    torch.testing.assert_close(features.pool("token"), expected.pool("token"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.pooled, expected.pooled, rtol=1e-4, atol=1e-5)


def test_cubes_weigh_frames_by_the_rule():
    images, clips = image_vit(), torch.randn(2, 1, 4, 8, 8, generator=seeded())
    tokens = images.embed(clips[:, :, 0]), images.embed(clips[:, :, 1])
    mean = start(video_vit(inflation="mean"), images).embed(clips)[:, 0]
    torch.testing.assert_close(mean, (tokens[0] + tokens[1]) / 2)
    torch.testing.assert_close(start(video_vit(inflation="centre"), images).embed(clips)[:, 0], tokens[1])


def test_pretraining_starts_from_a_file_of_an_image_encoder(tmp_path):
    images, file = image_vit(), tmp_path / "encoder.safetensors"
    save_file(images.state_dict(), file)
    options = VideoViTConfig(**SMALL, position="separate", class_token=True)
    sizes = {"image_size": 8, "channels": 1, "frames": 4, "seed": 0}
    method = assemble("video-vit", options, Supervised, Supervised.Config(), start=file, **sizes)
    expected = images.state_dict()["body.patch_embed.proj.weight"] / 2
    torch.testing.assert_close(method.encoder.body.patch_embed["proj"].weight[:, :, 1], expected)


@pytest.mark.parametrize(
    ("position", "options", "words"),
    [
        ("learned", {"position": "sinusoid"}, r"positions have no place among fixed ones; set encoder\.position"),
        ("relative", {}, "the image encoder's table of positions has none, and a frame has 4 patches"),
        ("learned", {"patch_size": 2}, "table of positions has 5 rows, and a frame has 16 patches"),
    ],
)
def test_image_weights_that_do_not_fit_are_refused(position, options, words):
    with pytest.raises(InputError, match=words):
        start(video_vit(**options), image_vit(position))
