"""Necks, heads and the wrapper that the engine trains."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from mmseg.registry import MODELS
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.tiny_segmentation import ENCODERS, GREY, settings, swin, vit, write_folder
from mimbench.contract import InputConfig
from mimbench.data import open_dataset
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.optim import decay_rules, param_groups
from mimbench_tasks.segmentation.config import HEADS, SegmentationConfig
from mimbench_tasks.segmentation.data import LabelledImages
from mimbench_tasks.segmentation.model import (
    PixelPreprocessor,
    SegmentorTraining,
    StridePyramid,
    build_segmentor,
    segmentor_config,
)
from mimbench_tasks.segmentation.task import Segmentation


def build(encoder=None, images=GREY, classes=3, **options) -> SegmentorTraining:
    return SegmentorTraining(build_segmentor(settings(**options), encoder or vit(), classes, images, seed=0))


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    root = tmp_path_factory.mktemp("pixels")
    dataset = open_dataset("ade20k", {"root": str(write_folder(root / "a"))}, root / "cache")
    images = LabelledImages(dataset.split("train"), settings(flip=0.5), channels=1, seed=0)
    return next(iter(images.training_loader(2, workers=0, pin_memory=False)))


@pytest.mark.parametrize("auxiliary", [0.0, 0.4])
@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("head", HEADS)
def test_one_step_reaches_every_parameter(head, kind, auxiliary, batch):
    model = build(ENCODERS[kind](), head=head, auxiliary=auxiliary).train()
    torch.manual_seed(0)
    output = model.training_step(batch, torch.Generator())
    assert output.loss.isfinite()
    assert not any("loss" in name for name in output.logs), "mmengine would add it to what is optimised"
    assert not any(value.requires_grad for value in output.logs.values())
    parts = sum(value for name, value in output.logs.items() if name.endswith("ce"))
    torch.testing.assert_close(parts, output.loss.detach())
    output.loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    predictions = model.eval().predict(batch)
    assert [labels.shape for labels in predictions] == [(40, 56)] * 2
    assert all(labels.min() >= 0 and labels.max() < 3 for labels in predictions)


@pytest.mark.parametrize(
    ("encoder", "options", "expected"),
    [
        (lambda: vit(8), {}, [(16, 4), (16, 8), (16, 16)]),
        (lambda: vit(16), {}, [(16, 4), (16, 8), (16, 16), (16, 32)]),
        (lambda: vit(4), {"strides": (1, 4, 16)}, [(16, 1), (16, 4), (16, 16)]),
        (swin, {}, [(8, 4), (16, 8), (32, 16)]),
    ],
)
@pytest.mark.parametrize("head", HEADS)
def test_heads_see_every_stride_and_answer_at_the_finest(head, encoder, options, expected):
    model = build(encoder(), head=head, **options).segmentor
    maps = model.extract_feat(torch.randn(2, 1, 64, 96))
    assert [tuple(each.shape[1:]) for each in maps] == [(dim, 64 // s, 96 // s) for dim, s in expected]
    finest = expected[0][1]
    assert model.decode_head(maps).shape == (2, 3, 64 // finest, 96 // finest)


def test_layers_of_a_plain_vit_make_up_the_levels():
    encoder = vit(8).eval()
    model = build(encoder, strides=(4, 8, 16), layers=(0, 1, 2)).segmentor
    images = torch.randn(2, 1, 32, 32)
    maps = model.backbone(images)
    for layer, each in enumerate(maps):
        torch.testing.assert_close(each, encoder.features(images, layer).dense)
    assert not torch.allclose(maps[0], maps[2])


@pytest.mark.parametrize(("map_stride", "strides"), [(16, (4, 8, 16, 32)), (4, (1, 2, 4, 32)), (8, (8,))])
def test_the_neck_brings_one_map_to_every_stride(map_stride, strides):
    neck = StridePyramid(8, map_stride, strides)
    maps = neck((torch.randn(2, 8, 128 // map_stride, 192 // map_stride),))
    assert [tuple(each.shape) for each in maps] == [(2, 8, 128 // stride, 192 // stride) for stride in strides]


def test_the_neck_is_mmsegmentations_where_that_has_one():
    theirs = MODELS.build({"type": "mmseg.Feature2Pyramid", "embed_dim": 8, "norm_cfg": {"type": "BN"}})
    ours = StridePyramid(8, 16, (4, 8, 16, 32))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.data.copy_(other.data)
    maps = [torch.randn(2, 8, 4, 6) for _ in range(4)]
    for mine, other in zip(ours(maps), theirs(maps), strict=True):
        torch.testing.assert_close(mine, other)


def of_protocol(name: str) -> SegmentationConfig:
    return SegmentationConfig.model_validate(dict(Segmentation.protocols[name].options))


PRETRAINED = {"beit-upernet": {"position": "relative", "layer_scale": 0.1}, "mae-upernet": {"position": "sincos"}}
"""Options of the ViT-B that each protocol is for."""


@pytest.mark.parametrize(("protocol", "backbone"), [("beit-upernet", "BEiT"), ("mae-upernet", "MAE")])
def test_the_official_model_has_its_published_size(protocol, backbone, monkeypatch):
    """BEiT-base with UPerNet, 150 classes: about 163 million parameters; and mmsegmentation's own, to the last one."""
    config = of_protocol(protocol)
    # mmsegmentation reads drop path rates from a tensor.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        encoder = config.adapt(ViT(ViTConfig(**PRETRAINED[protocol]), image_size=224, in_channels=3))
        described = segmentor_config(config, encoder, 150, InputConfig(image_size=512))
        segmentor = MODELS.build({"_scope_": "mmseg", **described})
        theirs = MODELS.build(official(backbone))
    count = sum(parameter.numel() for parameter in segmentor.parameters() if parameter.requires_grad)
    assert count == pytest.approx(164e6, rel=0.01)
    final_norm = 2 * 768  # theirs has none
    assert count - final_norm == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize("protocol", ["beit-upernet", "mae-upernet"])
def test_what_the_official_protocols_train_in_each_block(protocol):
    """Small maps and few channels; depth, layers, positions and rates as the protocol has them."""
    small = {"crop_size": 64, "slide": 32, "image_size": 64, "channels": 16}
    config = of_protocol(protocol).model_copy(update=small)
    options = {"embed_dim": 16, "num_heads": 2, **PRETRAINED[protocol]}
    encoder = ViT(ViTConfig(**options), image_size=32, in_channels=3)
    model = SegmentorTraining(build_segmentor(config, config.adapt(encoder), 3, InputConfig(image_size=32), seed=0))
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    tables = {name: value for name, value in trained.items() if name.endswith("relative_position_bias_table")}
    assert [value.shape for value in tables.values()] == [((2 * 4 - 1) ** 2 + 3, 2)] * 12
    groups = param_groups(model, config.train, **decay_rules(model))
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert [scales[name] for name in tables] == pytest.approx([0.65 ** (12 - block) for block in range(12)])
    gammas = [value for name, value in trained.items() if ".blocks." in name and "gamma" in name]
    assert len(gammas) == 24
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert all(decays[name] == 0.05 for name in tables)
    if protocol == "mae-upernet":
        assert not any(table.any() for table in tables.values())
        assert all(bool((gamma == 1).all()) for gamma in gammas)
        (positions,) = (name for name in trained if name.endswith("pos_embed"))
        assert trained[positions].shape == (1, 17, 16)
        assert (scales[positions], decays[positions]) == (pytest.approx(0.65**13), 0.0)


def test_windows_of_the_sliding_evaluation_all_have_the_size_that_positions_are_for(tmp_path):
    """Images that are narrower than a window are padded to it; larger ones are not padded at all."""
    config = settings(position="relative-per-block", crop_size=32, slide=16)
    model = SegmentorTraining(build_segmentor(config, config.adapt(vit(8)), 3, GREY, seed=0)).eval()
    seen = []
    layers = model.encoder.pyramid
    model.encoder.pyramid = lambda images: seen.append(tuple(images.shape[-2:])) or layers(images)
    for shape in ((20, 60), (45, 33)):
        dataset = open_dataset("ade20k", {"root": str(write_folder(tmp_path / str(shape), size=shape))}, tmp_path / "c")
        images = LabelledImages(dataset.split("test"), config, channels=1, seed=None)
        batch = next(iter(images.evaluation_loader(1, workers=0, pin_memory=False)))
        assert model.predict(batch)[0].shape == shape
    assert set(seen) == {(32, 32)}


def official(backbone):
    """mmsegmentation's configs/beit/beit-base_upernet_8xb2-160k_ade20k at 512 px, with BEiT's own head of 768."""
    norm = {"type": "BN"}
    shared = {"num_classes": 150, "norm_cfg": norm}
    return {
        "_scope_": "mmseg",
        "type": "EncoderDecoder",
        "backbone": {"type": backbone, "img_size": (512, 512), "init_values": 0.1, "out_indices": (3, 5, 7, 11)},
        "neck": {"type": "Feature2Pyramid", "embed_dim": 768, "norm_cfg": norm},
        "decode_head": {
            "type": "UPerHead",
            **shared,
            "in_channels": [768] * 4,
            "in_index": [0, 1, 2, 3],
            "channels": 768,
        },
        "auxiliary_head": {
            "type": "FCNHead",
            **shared,
            "in_channels": 768,
            "in_index": 2,
            "channels": 256,
            "num_convs": 1,
            "concat_input": False,
        },
    }


def test_the_encoder_keeps_its_weights_and_the_head_follows_the_seed():
    encoder, other_encoder = vit(), vit()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    first = build(encoder)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    again = build(other_encoder)
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(value, before[name])
    for (name, mine), other in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name


def test_the_segmentor_sees_what_pretraining_saw(batch):
    """Pixels normalised by the recipe's mean and std, then padded with zeros; labels padded with 255."""
    model = build(vit(16), strides=(16, 32))
    data = model.segmentor.data_preprocessor(batch, True)
    raw = torch.stack(batch["inputs"]).float()
    assert data["inputs"].shape == (2, 1, 64, 64)
    torch.testing.assert_close(data["inputs"][..., :40, :56], (raw / 255 - 0.25) / 0.5)
    assert not data["inputs"][..., 40:, :].any()
    assert (data["data_samples"][0].gt_sem_seg.data[..., 56:] == 255).all()
    assert batch["data_samples"][0].gt_sem_seg.data.shape == (1, 40, 56), "the loader's copy stays as it was"


def test_ignored_pixels_give_no_gradient_and_count_in_the_denominator(batch):
    model = build(vit(8), strides=(8,)).eval()
    data = model.segmentor.data_preprocessor(batch, True)
    logits = model.segmentor(data["inputs"])
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data["data_samples"]])
    logits = nn.functional.interpolate(logits, labels.shape[-2:], mode="bilinear")
    summed = nn.functional.cross_entropy(logits, labels, ignore_index=255, reduction="sum")
    loss = model.training_step(batch, torch.Generator()).loss
    torch.testing.assert_close(loss, summed / labels.numel())


def test_the_background_can_weigh_less(batch):
    """Class 0 stands first where there is a background."""
    model = build(vit(8), strides=(8,), background_weight=0.1).eval()
    data = model.segmentor.data_preprocessor(batch, True)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data["data_samples"]])
    logits = nn.functional.interpolate(model.segmentor(data["inputs"]), labels.shape[-2:], mode="bilinear")
    weighted = nn.functional.cross_entropy(logits, labels, torch.tensor([0.1, 1.0, 1.0]), ignore_index=255)
    torch.testing.assert_close(model.training_step(batch, torch.Generator()).loss, weighted)


def test_a_sliding_window_that_holds_the_image_changes_nothing(batch):
    whole = build(vit(8)).eval()
    window = build(vit(8), crop_size=64, slide=32).eval()
    for mine, other in zip(whole.predict(batch), window.predict(batch), strict=True):
        assert torch.equal(mine, other)
    small = build(vit(8), crop_size=32, slide=16).eval()
    logits = small.segmentor.inference(torch.randn(1, 1, 40, 56), [{"ori_shape": (40, 56), "img_shape": (40, 56)}])
    assert logits.shape == (1, 3, 40, 56)
    assert logits.isfinite().all()


def test_layers_for_layer_decay_are_the_encoders():
    model = build()
    assert model.num_layers == 3
    assert model.layer_of("segmentor.backbone.encoder.body.patch_embed.proj.weight") == 0
    assert model.layer_of("segmentor.backbone.encoder.body.blocks.1.mlp.fc1.weight") == 2
    assert model.layer_of("segmentor.decode_head.conv_seg.weight") == 4
    assert model.layer_of("segmentor.neck.levels.0.0.weight") == 4
    names = {name for name, _ in model.named_parameters()}
    assert model.no_weight_decay() == {"segmentor.backbone.encoder.body.cls_token"} <= names


@pytest.mark.parametrize("head", HEADS)
def test_a_step_under_bf16_autocast(head, batch):
    """The engine's default precision on CUDA."""
    model = build(head=head, auxiliary=0.4).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.training_step(batch, torch.Generator())
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("head", "kind"), [("simple-pyramid", "vit"), ("upernet", "swin"), ("upernet", "convnext")])
def test_the_forward_pass_mixes_no_devices(head, kind):
    """Fake tensors play CUDA where there is none, and raise where a CPU tensor slips in."""
    model = build(ENCODERS[kind](), head=head).segmentor.eval()
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with FakeTensorMode():
        on_cuda = {name: torch.empty(value.shape, dtype=value.dtype, device="cuda") for name, value in state.items()}
        images = torch.empty(2, 1, 64, 64, device="cuda")
        logits = torch.func.functional_call(model, on_cuda, (images,), {"mode": "tensor"})
        assert logits.device.type == "cuda"
        assert logits.shape == (2, 3, 16, 16)


def test_the_preprocessor_follows_the_model_that_holds_it():
    """mmseg's own would stay on the CPU when a module around the segmentor moves."""
    holder = nn.ModuleDict({"inner": PixelPreprocessor(mean=[0.0], std=[1.0])})
    holder.to("meta")
    assert holder["inner"].device.type == "meta"
