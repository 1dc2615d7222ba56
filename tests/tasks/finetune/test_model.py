"""The classifier that is fine-tuned: weights, norms, positions, rates and decay are those of the official scripts."""

from __future__ import annotations

import pytest
import torch

from helpers.tiny_finetune import INPUT, encoder, task
from mimbench.contract import InputConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.optim import param_groups
from mimbench_tasks.finetune.model import FinetuneTraining, adapt, build_classifier


def classifier(config, pretrained=None, size=8, classes=4):
    return build_classifier(pretrained or encoder(), config, size, classes, seed=0)


def test_pretrained_weights_arrive_and_fresh_ones_do_not():
    pretrained = encoder(drop_path=0.3)
    tuned = classifier(task({"drop_path": 0.1}).config, pretrained).encoder
    assert all(torch.equal(value, pretrained.state_dict()[name]) for name, value in tuned.state_dict().items())
    assert tuned.config.drop_path == 0.1
    fresh = classifier(task(protocol="scratch").config, pretrained).encoder
    assert not torch.equal(fresh.body.blocks[0].mlp.fc1.weight, pretrained.body.blocks[0].mlp.fc1.weight)
    again = classifier(task(protocol="scratch").config, pretrained).encoder
    assert torch.equal(fresh.body.blocks[0].mlp.fc1.weight, again.body.blocks[0].mlp.fc1.weight)


@pytest.mark.parametrize(
    ("before", "after"), [("relative", "relative-per-block"), ("sincos", "learned"), ("learned", None)]
)
def test_positions_become_trainable_and_change_no_feature(before, after):
    pretrained = encoder(position=before)
    tuned = classifier(task({"position": after, "drop_path": 0.0}).config, pretrained).encoder.eval()
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(tuned.features(images).pooled, pretrained.eval().features(images).pooled)
    trained = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    if after == "relative-per-block":
        assert {f"body.blocks.{i}.attn.relative_position_bias_table" for i in range(2)} <= trained
        assert not any("rel_pos_bias" in name for name in trained)
    else:
        assert "body.pos_embed" in trained


def test_another_image_size_resamples_the_tables():
    tuned = classifier(task({"position": "relative-per-block", "image_size": 16}).config, size=16).encoder
    assert tuned.body.blocks[1].attn.relative_position_bias_table.shape == (7 * 7 + 3, 2)
    swin = classifier(task({"image_size": 16, "window": 4}).config, encoder("swin"), size=16).encoder
    assert swin.body.layers[0].blocks[0].attn.relative_position_bias_table.shape == (49, 1)


def test_a_fresh_norm_takes_the_final_norms_place():
    config = task({"norm": "fresh", "head_std": 2e-5, "drop_path": 0.0}).config
    model = classifier(config).eval()
    images = torch.randn(3, 1, 8, 8)
    pooled = model.encoder.layers(images, final_norm=False)[-1].pooled
    expected = model.head(torch.nn.functional.layer_norm(pooled, (16,), eps=1e-6))
    torch.testing.assert_close(model(images), expected)
    assert float(model.head.weight.detach().std()) == pytest.approx(2e-5, rel=0.3)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"encoder.body.norm.weight", "encoder.body.norm.bias"}
    token = classifier(task({"pooling": "token", "drop_path": 0.0}).config).eval()
    torch.testing.assert_close(token(images), token.head(token.encoder.features(images).prefix[:, 0]))


@pytest.mark.parametrize(("protocol", "kind"), [("simmim-vit-base", "vit"), ("simmim-swin-base-100ep", "swin")])
def test_layers_and_decay_are_those_of_the_official_scripts(protocol, kind):
    config = task({"window": 2 if kind == "swin" else None, "image_size": 8}, protocol=protocol).config
    model = FinetuneTraining(classifier(config, encoder(kind)), config, INPUT, batched=True)
    groups = param_groups(
        model, config.train, layer_of=model.layer_of, num_layers=model.num_layers, no_decay=model.no_weight_decay()
    )
    decayed = {name for group in groups for name in group["names"] if group["weight_decay"]}
    scales = {name.removeprefix("classifier."): group["lr_scale"] for group in groups for name in group["names"]}
    decay = config.train.layer_decay
    assert scales["head.weight"] == 1
    assert scales["encoder.body.patch_embed.proj.weight"] == pytest.approx(decay**3)
    tables = {name for name in scales if name.endswith("table")}
    assert len(tables) == 2
    if kind == "vit":
        assert scales["fc_norm.weight"] == 1
        assert sorted(scales[name] for name in tables) == pytest.approx([decay**2, decay])
        assert {f"classifier.{name}" for name in tables} <= decayed
        assert "classifier.encoder.body.cls_token" not in decayed
    else:
        assert not {f"classifier.{name}" for name in tables} & decayed


@pytest.mark.parametrize(
    ("protocol", "position", "published"),
    [("mae-vit-base", "sincos", 86_567_656), ("simmim-vit-base", "relative", 86_530_984)],
)
def test_a_full_size_step_on_the_meta_device(protocol, position, published):
    """Parameters as timm counts vit_base_patch16_224 and beit_base_patch16_224."""
    tuned = task(protocol=protocol)
    layer_scale = 0.1 if position == "relative" else None
    with torch.device("meta"):
        pretrained = ViT(ViTConfig(position=position, layer_scale=layer_scale), image_size=224, in_channels=3)
        model = classifier(task({"from_scratch": True}, protocol=protocol).config, pretrained, size=224, classes=1000)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == published
    shown = tuned.config.input(InputConfig(image_size=224))
    training = FinetuneTraining(model, tuned.config, shown, batched=False).to("meta")
    batch = (
        torch.empty(4, 3, 224, 224, dtype=torch.uint8, device="meta"),
        torch.empty(4, dtype=torch.long, device="meta"),
    )
    output = training.training_step(batch, FakeGenerator())
    output.loss.backward()
    assert output.loss.shape == ()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


class FakeGenerator:
    """torch has no generator on the meta device."""

    device = torch.device("meta")

    def initial_seed(self) -> int:
        return 0


def test_the_recipes_own_rate_of_drop_path_is_not_used():
    assert adapt(encoder(drop_path=0.4), task({"drop_path": 0.0}).config, 8).config.drop_path == 0
