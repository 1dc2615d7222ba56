"""The ViT for clips: VideoMAE's positions, its classifier, and the checks for encoders."""

from __future__ import annotations

import math

import pytest
import torch

from helpers.official_values import read_arrays
from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.convert import recognise, to_encoder
from mimbench.encoders.video_vit import VideoViT, VideoViTConfig, sinusoid_positions
from mimbench.testing import encoder_suite, parametrize_checks
from mimbench_tasks.finetune.config import FinetuneConfig
from mimbench_tasks.finetune.model import Classifier

SMALL = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


def build(frames=4, **options) -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(VideoViTConfig(**SMALL | options), image_size=8, in_channels=1, frames=frames)


@parametrize_checks(encoder_suite(VideoViT, SMALL, image_size=8, channels=1, frames=4))
def test_it_passes_the_checks_for_encoders(check):
    check()


@parametrize_checks(
    encoder_suite(VideoViT, {**SMALL, "position": "separate", "class_token": True}, image_size=8, channels=1, frames=4)
)
def test_it_passes_them_with_learned_positions_and_a_class_token(check):
    check()


def test_sinusoid_positions_are_those_of_the_formula():
    table = sinusoid_positions(7, 6)
    assert table.shape == (1, 7, 6)
    for place, channel in [(0, 0), (0, 1), (3, 2), (6, 5)]:
        angle = place / 10000 ** (2 * (channel // 2) / 6)
        assert table[0, place, channel] == pytest.approx(math.cos(angle) if channel % 2 else math.sin(angle), abs=1e-7)


def test_separate_positions_are_sums_of_time_and_space():
    encoder = build(position="separate")
    positions = encoder.body.positions().unflatten(1, encoder.grid)
    expected = encoder.body.pos_embed_temporal[0, 1] + encoder.body.pos_embed_spatial[0, 2]
    torch.testing.assert_close(positions[0, 1, 1, 0], expected)
    assert set(encoder.no_weight_decay()) == {"body.pos_embed_spatial", "body.pos_embed_temporal"}


def official_classifier() -> tuple[Classifier, dict]:
    arrays, meta = read_arrays("videomae_classifier")
    config = meta["config"]
    options = {name: config[name] for name in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")}
    encoder = VideoViT(VideoViTConfig(**options), image_size=config["img_size"], in_channels=3, frames=16)
    classifier = Classifier(encoder, FinetuneConfig(pooling="mean", norm="fresh"), config["num_classes"])
    weights = {name.removeprefix("param/"): value for name, value in arrays.items() if name.startswith("param/")}
    layout = recognise(weights)
    assert layout.name == "videomae-classifier"
    encoder.load_state_dict(to_encoder(weights, layout, encoder).state)
    for part in ("fc_norm", "head"):
        module = classifier.get_submodule(part)
        module.load_state_dict({name: weights[f"{part}.{name}"] for name in ("weight", "bias")})
    return classifier, arrays


def test_videomaes_classifier_gives_the_official_logits_and_gradients():
    classifier, arrays = official_classifier()
    logits = classifier(arrays["input/video"])
    torch.testing.assert_close(logits, arrays["out/logits"], rtol=1e-5, atol=2e-6)
    loss = torch.nn.functional.cross_entropy(logits, arrays["input/labels"], label_smoothing=0.1)
    assert loss.item() == pytest.approx(float(arrays["out/loss"]), rel=5e-7)
    loss.backward()
    for name, expected in arrays.items():
        if name.startswith("grad/"):
            ours = name.removeprefix("grad/")
            ours = ours if ours.startswith(("fc_norm", "head")) else f"encoder.body.{ours}"
            torch.testing.assert_close(classifier.get_parameter(ours).grad, expected, rtol=1e-5, atol=1e-6)
    used = [parameter.grad for parameter in classifier.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.double().norm() for gradient in used]).norm()
    assert norm.item() == pytest.approx(float(arrays["grad_norm"]), rel=1e-6)


def test_views_of_a_clip_are_merged_as_the_mean_of_their_softmax():
    _, arrays = official_classifier()
    torch.testing.assert_close(arrays["out/logits"].softmax(1).mean(0), arrays["aux/merged_views"])


def test_the_checkpoint_of_the_classifier_is_refused_if_weights_are_missing():
    arrays, _ = read_arrays("videomae_classifier")
    weights = {name.removeprefix("param/"): value for name, value in arrays.items() if name.startswith("param/")}
    del weights["blocks.1.attn.v_bias"]
    encoder = VideoViT(
        VideoViTConfig(patch_size=8, embed_dim=32, depth=2, num_heads=4), image_size=32, in_channels=3, frames=16
    )
    assert to_encoder(weights, recognise(weights), encoder).missing == ("body.blocks.1.attn.v_bias",)


@pytest.mark.parametrize(
    ("options", "sizes", "words"),
    [
        ({}, {"frames": 1}, "takes clips; set input.frames"),
        ({}, {"frames": 5}, "cubes of 2 frames of 4 px do not tile clips of 5 frames"),
        ({"patch_size": 3}, {}, "cubes of 2 frames of 3 px do not tile"),
        ({"num_heads": 3}, {}, "embed_dim 16 is not a multiple of encoder.num_heads 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, sizes, words):
    with pytest.raises(InputError, match=words):
        build(**options | sizes)


def test_only_visible_cubes_are_encoded():
    encoder = build(depth=1).eval()
    tokens = encoder.embed(torch.randn(2, 1, 4, 8, 8, generator=seeded()))
    keep = torch.tensor([[0, 3, 6], [1, 2, 7]])
    changed = tokens.clone().flatten(1, 3)
    hidden = torch.ones(2, 8, dtype=torch.bool).scatter(1, keep, False)
    changed[hidden] = 9.0
    some = encoder.forward_tokens(tokens, keep).patches
    torch.testing.assert_close(some, encoder.forward_tokens(changed.view_as(tokens), keep).patches)
    assert some.shape == (2, 3, 16)


def test_layer_decay_counts_from_the_patch_embedding():
    classifier, _ = official_classifier()
    layers = {classifier.encoder.layer_of(name) for name, _ in classifier.encoder.named_parameters()}
    assert layers == {0, 1, 2, 3}
