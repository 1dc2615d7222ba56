"""BEiT against the official implementation, and what it promises besides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.encoders.vit import ViT
from mimbench_methods.beit import BEiT

GOLDEN = Path(__file__).parents[1] / "golden"


def ours(name: str) -> str:
    if name == "mask_token":
        return name
    return f"head.{name[8:]}" if name.startswith("lm_head.") else f"encoder.body.{name}"


def build(image_size=16, channels=3, layer_scale=0.1, vocabulary=64, **options) -> BEiT:
    torch.manual_seed(0)
    encoder = ViT(
        ViT.Config(patch_size=4, embed_dim=32, depth=2, num_heads=4, layer_scale=layer_scale),
        image_size=image_size,
        in_channels=channels,
    )
    options = {"hidden_patches": 6, "min_block": 4, "kmeans": {"vocabulary": vocabulary}, **options}
    return BEiT(BEiT.Config(**options), encoder)


@pytest.fixture(scope="module")
def official():
    """(golden vectors, BEiT with the official weights)."""
    vectors = np.load(GOLDEN / "beit_vit_tiny.npz")
    config = json.loads(str(vectors["meta"]))["config"]
    method = build(config["img_size"], vocabulary=config["vocab_size"], layer_scale=config["init_values"])
    state = {ours(k[6:]): torch.from_numpy(vectors[k]) for k in vectors.files if k.startswith("param/")}
    state["mask_token"] = state["mask_token"].unsqueeze(0)
    del state["encoder.body.rel_pos_bias.relative_position_index"]
    missing, unexpected = method.load_state_dict(state, strict=False)
    assert unexpected == []
    assert missing == ["tokenizer.words"]
    return vectors, method


def test_loss_accuracy_and_gradients_are_the_official_ones(official, monkeypatch):
    vectors, method = official
    words = torch.from_numpy(vectors["input/token_ids"]).view(-1, 8, 8)
    monkeypatch.setattr(method, "target", lambda images: words)
    method.zero_grad()
    output = method(torch.from_numpy(vectors["input/image"]), torch.from_numpy(vectors["input/mask"]).bool())
    output.loss.backward()
    assert abs(output.loss.item() / float(vectors["out/loss_f64"]) - 1) < 5e-7
    assert output.logs["mlm_acc"].item() == pytest.approx(float(vectors["out/mlm_acc"]), abs=1e-6)
    gradients = {name: p.grad for name, p in method.named_parameters() if p.requires_grad}
    norm = torch.stack([g.double().norm() for g in gradients.values()]).norm()
    assert abs(norm.item() / float(vectors["grad_norm_f64"]) - 1) < 1e-5
    stored = [k for k in vectors.files if k.startswith("grad/")]
    assert stored
    for key in stored:
        grad = gradients[ours(key[5:])].numpy().reshape(vectors[key].shape)
        assert np.allclose(grad, vectors[key], rtol=1e-5, atol=1e-6), key


def test_scores_are_the_official_ones(official):
    vectors, method = official
    mask = torch.from_numpy(vectors["input/mask"]).bool()
    with torch.no_grad():
        scores = method.predict(torch.from_numpy(vectors["input/image"]), mask)
    assert np.allclose(scores.flatten(1, 2), vectors["out/logits_all"], atol=5e-6)
    assert np.allclose(scores[mask], vectors["out/logits"], atol=5e-6)


def test_initial_weights_follow_the_official_ones():
    method = build()
    for index, block in enumerate(method.encoder.body.blocks):
        assert block.mlp.fc1.weight.abs().max() <= 0.02
        limit = 0.02 / (2 * (index + 1)) ** 0.5
        for layer in (block.attn.proj, block.mlp.fc2):
            assert 0.9 * limit < layer.weight.abs().max() <= limit
    assert method.encoder.body.patch_embed.proj.weight.abs().max() <= 0.02
    assert method.head.weight.abs().max() <= 0.02


def test_only_the_mask_token_is_decayed_of_the_tokens():
    assert build().no_weight_decay() == {"encoder.body.cls_token"}


def test_the_tokenizer_is_not_trained():
    names = {name for name, p in build(tokenizer="dvae", dvae={"vocabulary": 8}).named_parameters() if p.requires_grad}
    assert not any(name.startswith("tokenizer.") for name in names)
    assert "head.weight" in names


def test_masked_pixels_do_not_reach_the_prediction(sees_only_the_visible):
    method = build().eval()
    images, mask = torch.randn(4, 3, 16, 16, generator=seeded()), method.sample_mask(4, seeded())
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)


def test_masked_pixels_do_not_reach_the_reconstruction():
    method = build(tokenizer="dvae", dvae={"vocabulary": 8, "width": 8}).eval()
    images, mask = torch.randn(2, 3, 16, 16, generator=seeded()), method.sample_mask(2, seeded())
    masked = mask.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1).expand_as(images)
    with torch.no_grad():
        first = method.reconstruct(images, mask)
        second = method.reconstruct(torch.where(masked, 9.0, images), mask)
    assert torch.equal(first[masked], second[masked])
    assert torch.equal(first[~masked], images[~masked])


def test_a_batch_that_masks_nothing_has_no_loss():
    output = build()(torch.zeros(1, 3, 16, 16), torch.zeros(1, 4, 4, dtype=torch.bool))
    assert output.loss.item() == 0


def test_an_impossible_mask_is_refused_before_training():
    with pytest.raises(InputError, match="masks everything of 16 cells"):
        build(hidden_patches=16)


def test_only_the_chosen_tokenizer_shapes_the_result():
    base = BEiT.Config(kmeans={"vocabulary": 9})
    assert BEiT.Config(kmeans={"vocabulary": 9}, dvae={"epochs": 3}).shaping() == base.shaping()
    assert BEiT.Config(kmeans={"vocabulary": 8}).shaping() != base.shaping()
    assert BEiT.Config(tokenizer="dvae").shaping() != BEiT.Config(tokenizer="dvae", dvae={"epochs": 3}).shaping()


def test_bf16_autocast_trains_on_the_same_words(trains_in_bf16):
    method = build()
    images, mask = torch.randn(4, 3, 16, 16, generator=seeded()), method.sample_mask(4, seeded())
    words = method.target(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(method.target(images), words)
    trains_in_bf16(method, images, mask)


@pytest.mark.parametrize("tokenizer", ["kmeans", "dvae"])
def test_forward_keeps_to_one_device(on_fake_cuda, tokenizer):
    method = build(tokenizer=tokenizer, dvae={"vocabulary": 8, "width": 8})
    output = on_fake_cuda(method, torch.zeros(2, 3, 16, 16), torch.ones(2, 4, 4).bool())
    assert output.loss.device.type == "cuda"
