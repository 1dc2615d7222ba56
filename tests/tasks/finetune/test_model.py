"""The classifier that is fine-tuned: weights, norms, positions, rates and decay are those of the official scripts."""

from __future__ import annotations

import pytest
import torch

from helpers.tiny_finetune import INPUT, encoder, task
from mimbench.contract import InputConfig, InputError
from mimbench.encoders.convnet import ConvNeXt, ConvNeXtConfig, ResNet, ResNetConfig
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


@pytest.mark.parametrize("kind", ["vit", "swin", "convnext", "resnet"])
def test_only_the_last_blocks_and_what_follows_are_trained(kind):
    pretrained = encoder(kind)
    for trained in (0, 1):
        model = classifier(task({"trained_blocks": trained, "drop_path": 0.0}).config, pretrained)
        layers = {pretrained.layer_of(name) for name, one in model.encoder.named_parameters() if one.requires_grad}
        assert layers - {pretrained.num_layers + 1} == set(
            range(pretrained.num_layers, pretrained.num_layers - trained, -1)
        )
        assert model.head.weight.requires_grad
        before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
        model.train()(torch.randn(4, 1, 8, 8))
        for name, value in model.encoder.state_dict().items():  # with the statistics of batch norms
            is_frozen = pretrained.layer_of(name) <= pretrained.num_layers - trained
            assert not is_frozen or torch.equal(value, before[name])


def test_frozen_blocks_drop_no_paths_and_all_blocks_are_everything():
    pretrained = encoder(depth=3)
    model = classifier(task({"trained_blocks": 1, "drop_path": 0.5}).config, pretrained).train()
    assert [block.training for block in model.encoder.body.blocks] == [False, False, True]
    whole = [
        {name for name, one in classifier(task(options).config, pretrained).named_parameters() if one.requires_grad}
        for options in ({}, {"trained_blocks": 3})
    ]
    assert whole[0] == whole[1]


def test_impossible_numbers_of_trained_blocks_are_refused():
    with pytest.raises(InputError, match="trained_blocks 3 is more than the encoder's 2 blocks"):
        classifier(task({"trained_blocks": 3}).config)
    with pytest.raises(InputError, match="leave from_scratch out"):
        task({"trained_blocks": 1}, protocol="scratch")


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


def test_the_encoders_final_norm_can_act_after_the_pooling():
    pretrained = encoder()
    torch.nn.init.normal_(pretrained.body.norm.weight)
    config = task({"norm": "encoder-after-pooling", "drop_path": 0.0}).config
    model = classifier(config, pretrained).eval()
    images = torch.randn(3, 1, 8, 8)
    pooled = model.encoder.layers(images, final_norm=False)[-1].pooled
    torch.testing.assert_close(model(images), model.head(pretrained.body.norm(pooled)))
    assert not any(parameter.requires_grad for parameter in model.encoder.body.norm.parameters())
    with pytest.raises(InputError, match="one LayerNorm after its blocks, which this convnet encoder does not have"):
        classifier(config, encoder("resnet"))


def test_cae_keeps_its_fixed_positions_and_gets_a_table_for_each_block():
    pretrained = encoder(position="sincos-rows-first", layer_scale=0.1)
    config = task({"position": "sincos-rows-first-and-relative", "drop_path": 0.0}).config
    model = classifier(config, pretrained)
    images = torch.randn(2, 1, 8, 8)
    expected = pretrained.eval().features(images).pooled
    torch.testing.assert_close(model.encoder.eval().features(images).pooled, expected)
    tables = [
        name for name, parameter in model.named_parameters() if name.endswith("table") and parameter.requires_grad
    ]
    assert len(tables) == 2
    assert not model.encoder.body.pos_embed.requires_grad
    torch.nn.init.normal_(model.encoder.body.blocks[0].attn.rel_pos_bias.relative_position_bias_table)
    assert not torch.allclose(model.encoder.features(images).pooled, expected)


def rates(kind, depths, groups):
    """Layer scale by parameter, for layer decay 0.5."""
    with torch.device("meta"):
        if kind == "convnext":
            config = ConvNeXtConfig(dims=(8,) * 4, depths=depths)
            pretrained = ConvNeXt(config, image_size=32, in_channels=3)
        else:
            pretrained = ResNet(ResNetConfig(dims=(8,) * 4, depths=depths), image_size=32, in_channels=3)
        options = {"layer_groups": groups, "drop_path": 0.0, "train": {"layer_decay": 0.5}}
        config = task(options).config
        model = FinetuneTraining(classifier(config, pretrained, size=32), config, INPUT, batched=True)
    groups = param_groups(model, config.train, layer_of=model.layer_of, num_layers=model.num_layers)
    prefix = "classifier.encoder.body."
    return {name.removeprefix(prefix): group["lr_scale"] for group in groups for name in group["names"]}


def test_groups_of_blocks_have_the_rates_of_convnexts_official_scripts():
    """facebookresearch/ConvNeXt-V2@25538957 optim_factory.py; keyu-tian/SparK@a63e386f: 12 layers and the stem."""
    scales = rates("convnext", (3, 3, 27, 3), [3] * 12)
    layers = {"stem.0": 0, "stages.0.blocks.2": 1, "stages.1.downsample.1": 2, "stages.1.blocks.0": 2}
    layers |= {"stages.2.downsample.0": 3, "stages.2.blocks.2": 3, "stages.2.blocks.3": 4, "stages.2.blocks.26": 11}
    layers |= {"stages.3.downsample.1": 12, "stages.3.blocks.1": 12, "norm_pre": 13}
    for start, layer in layers.items():
        of_layer = {scale for name, scale in scales.items() if name.startswith(f"{start}.")}
        assert of_layer == {0.5 ** (13 - layer)}, start
    assert scales["classifier.head.weight"] == 1


def test_groups_of_blocks_have_the_rates_of_sparks_resnet():
    """keyu-tian/SparK@a63e386f downstream_imagenet/models/__init__.py: 6 layers of ResNet-50 and the stem."""
    scales = rates("resnet", (3, 4, 6, 3), [3, 2, 2, 3, 3, 3])
    layers = {"conv1": 0, "bn1": 0, "layer1.2": 1, "layer2.0": 2, "layer2.1": 2, "layer2.2": 3, "layer2.3": 3}
    layers |= {"layer3.0": 4, "layer3.2": 4, "layer3.3": 5, "layer3.5": 5, "layer4.0": 6, "layer4.2": 6}
    for start, layer in layers.items():
        of_layer = {scale for name, scale in scales.items() if name.startswith(f"{start}.")}
        assert of_layer == {0.5 ** (7 - layer)}, start


@pytest.mark.parametrize("groups", [[1], [2, 1], [3, -1]])
def test_groups_that_are_not_the_encoders_blocks_are_refused(groups):
    config = task({"layer_groups": groups}).config
    with pytest.raises(InputError, match=r"task\.layer_groups .* add up to the encoder's 2 blocks"):
        FinetuneTraining(classifier(config), config, INPUT, batched=True)


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_the_binary_loss_is_timms(mixup):
    from timm.loss import BinaryCrossEntropy

    options = {"loss": "binary", "smoothing": 0.1, "mixup": mixup, "cutmix": 0.0, "drop_path": 0.0}
    config = task(options).config
    model = FinetuneTraining(classifier(config).eval(), config, INPUT, batched=True)
    seen = {}
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.update(logits=output))
    if model.mix is not None:
        mix = model.mix
        model.mix = lambda *inputs: seen.setdefault("mixed", mix(*inputs))
    batch = (torch.randint(0, 255, (4, 1, 8, 8), dtype=torch.uint8), torch.tensor([0, 3, 1, 2]))
    loss = model.training_step(batch, torch.Generator().manual_seed(0)).loss
    target = seen["mixed"][1] if mixup else batch[1]
    official = BinaryCrossEntropy(smoothing=0.0 if mixup else 0.1, target_threshold=None)
    torch.testing.assert_close(loss, official(seen["logits"], target))


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
