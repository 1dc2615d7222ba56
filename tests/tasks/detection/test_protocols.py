"""COCO's protocols: sizes as published, one reduced step with all their options, and what planning refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from helpers.tiny_detection import TinyEncoder, write_scenes
from mimbench.contract import InputConfig, InputError
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.optim import decay_rules, param_groups
from mimbench.recipe import document as recipe_document
from mimbench_tasks.detection.config import DetectionConfig
from mimbench_tasks.detection.model import DetectorTraining, build_detector, model_config
from mimbench_tasks.detection.pipeline import test_pipeline as pipeline_of_tests
from mimbench_tasks.detection.pipeline import training_pipeline
from mimbench_tasks.detection.scenes import Scenes
from mimbench_tasks.detection.task import Detection

PROTOCOLS = Detection.protocols
COCO = [name for name in PROTOCOLS if name != "embedded"]
IMAGES = InputConfig(image_size=224)


def options_of(name: str, **changed: Any) -> DetectionConfig:
    return DetectionConfig(**recipe_document.merge(PROTOCOLS[name].options, {"protocol": name, **changed}))


def vit_b() -> ViT:
    return ViT(ViTConfig(position="sincos"), image_size=224, in_channels=3)


def swin(size: str) -> Swin:
    sizes: dict[str, dict[str, Any]] = {
        "T": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
        "S": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
        "B": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    }
    return Swin(SwinConfig(**sizes[size]), image_size=224, in_channels=3)


CASCADE = {"detector": "cascade-mask-rcnn", "box_convs": 4, "box_fcs": 1, "box_norm": "SyncBN"}
"""Swin's cascade (configs/swin/cascade_mask_rcnn_swin_base_..._giou_4conv1f_adamw_3x_coco.py)."""
# Millions of parameters. ViTDet: arXiv:2203.16527, Table 5. Swin: README of SwinTransformer/
# Swin-Transformer-Object-Detection@ed8d4d85; Swin-B's Mask R-CNN: arXiv:2107.00652, Table 3.
PUBLISHED = [
    ("vitdet", "ViT-B", {}, 111),
    ("swin-3x", "T", {}, 48),
    ("swin-3x", "S", {}, 69),
    ("swin-3x", "B", {}, 107),
    ("swin-3x", "B", CASCADE, 145),
]


@pytest.mark.parametrize(("protocol", "size", "changed", "millions"), PUBLISHED)
def test_full_size_models_have_as_many_parameters_as_published(protocol, size, changed, millions):
    config = options_of(protocol, **changed)
    with torch.device("meta"):
        encoder = vit_b() if size == "ViT-B" else swin(size)
        detector = MODELS.build(ConfigDict(model_config(config, encoder, IMAGES, classes=80)))
    assert round(sum(parameter.numel() for parameter in detector.parameters()) / 1e6) == millions


SMALL = {
    "channels": 16,
    "proposals": 20,
    "candidates": [40, 20],
    "roi_samples": 16,
    "score_threshold": 0.0,
    "max_detections": 5,
}
"""What shrinks a protocol to a test; everything else stays as it is."""


def reduced(name: str) -> DetectionConfig:
    options = PROTOCOLS[name].options
    changed: dict[str, Any] = {**SMALL, "train": {"batch_size": 2, "epochs": options["train"]["epochs"]}}
    if "scale_jitter" in options:
        return options_of(name, **changed, image_size=128, window=3)
    sizes = [48, 56, 64] if len(options["shorter_side"]) > 1 else [64]
    changed |= {"shorter_side": sizes, "image_size": 107, "window": 3}
    return options_of(name, **changed, **({"precrop_side": [40, 50], "precrop": [30, 45]} if len(sizes) > 1 else {}))


def small_encoder(name: str) -> ViT | Swin:
    if name.startswith("vitdet"):
        config = ViTConfig(patch_size=16, embed_dim=16, depth=12, num_heads=2, position="sincos")
        return ViT(config, image_size=64, in_channels=3)
    config = SwinConfig(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window=2)
    return Swin(config, image_size=64, in_channels=3)


@pytest.mark.parametrize("name", COCO)
def test_a_reduced_step_with_every_option_on(name, tmp_path):
    config, encoder = reduced(name), small_encoder(name)
    split = write_scenes(tmp_path, 4, size=(56, 72), mode="RGB")
    scenes = Scenes(split, training_pipeline(config, 3), training=True, keep_empty=config.keep_empty)
    batch = next(iter(scenes.loader(2, seed=0, workers=0, pin_memory=False)))
    detector = build_detector(config, encoder, IMAGES, classes=2, seed=0)
    model = DetectorTraining(detector, config.train.undecayed).train()
    rates = {module.drop_prob for module in model.encoder.modules() if getattr(module, "drop_prob", 0)}
    assert max(rates) == pytest.approx(config.drop_path)
    torch.manual_seed(0)
    output = model.training_step(batch, torch.Generator())
    output.loss.backward()
    assert output.loss.isfinite()
    trained = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    unused = [key for key, parameter in trained.items() if parameter.grad is None]
    assert unused == [], "distributed training would wait for their gradients"
    groups = param_groups(model, config.train, **decay_rules(model))
    scales = sorted({group["lr_scale"] for group in groups})
    depth = model.num_layers + 1
    assert scales[0] == pytest.approx(config.train.layer_decay**depth if config.train.layer_decay else 1.0)
    undecayed = {key for group in groups if not group["weight_decay"] for key in group["names"]}
    assert all("relative_position_bias_table" not in key or key in undecayed for key in trained)
    test = Scenes(split, pipeline_of_tests(config, 3), training=False)
    samples = model.eval().predict(next(iter(test.loader(2, seed=None, workers=0, pin_memory=False))))
    assert all(sample.pred_instances.masks.shape[1:] == (56, 72) for sample in samples)


@pytest.mark.parametrize("name", COCO)
def test_batches_are_padded_as_the_protocol_says(name, tmp_path):
    config, encoder = reduced(name), small_encoder(name)
    split = write_scenes(tmp_path, 2, size=(56, 72), mode="RGB")
    scenes = Scenes(split, training_pipeline(config, 3), training=True)
    described = model_config(config, encoder, IMAGES, classes=2)["data_preprocessor"]
    preprocessor = MODELS.build({"_scope_": "mmdet", **described})
    data = preprocessor(next(iter(scenes.loader(2, seed=0, workers=0, pin_memory=False))), True)
    height, width = data["inputs"].shape[-2:]
    if config.square:
        assert (height, width) == (128, 128)
    else:
        assert height % 32 == width % 32 == 0
    sample = data["data_samples"][0]
    assert sample.gt_instances.masks.masks.shape[1:] == (height, width)


def test_multi_scale_training_draws_sides_and_tests_see_the_last(tmp_path):
    config = reduced("swin-3x")
    split = write_scenes(tmp_path, 1, size=(60, 90), mode="RGB")
    scenes = Scenes(split, training_pipeline(config, 3), training=True)
    shapes = {tuple(scenes[0, seed]["inputs"].shape[1:]) for seed in range(60)}
    uncropped = {(48, 72), (56, 84), (64, 96)}
    assert uncropped < shapes, "some scenes are cropped before, and have other proportions"
    assert all(min(shape) in (48, 56, 64) or max(shape) == 107 for shape in shapes)
    test = Scenes(split, pipeline_of_tests(config, 3), training=False)
    assert test[0, 0]["inputs"].shape == (3, 64, 96)


def test_the_longer_side_is_bounded(tmp_path):
    config = reduced("1x")
    split = write_scenes(tmp_path, 1, size=(40, 200), mode="RGB")
    test = Scenes(split, pipeline_of_tests(config, 3), training=False)
    assert test[0, 0]["inputs"].shape == (3, 21, 107)


@pytest.mark.parametrize("name", ["vitdet", "vitdet-cascade"])
def test_vitdet_trains_the_absolute_positions_and_does_not_decay_them(name):
    detector = build_detector(reduced(name), small_encoder(name), IMAGES, classes=2, seed=0)
    model = DetectorTraining(detector, reduced(name).train.undecayed)
    groups = param_groups(model, reduced(name).train, **decay_rules(model))
    (group,) = (group for group in groups if any(each.endswith("pos_embed") for each in group["names"]))
    assert group["weight_decay"] == 0
    assert group["lr_scale"] == pytest.approx(0.7**13)


def test_options_that_were_added_later_stay_out_of_older_protocols():
    """The reference records of the embedded scenes hold under the code of now."""
    embedded = Detection(options_of("embedded")).protocol()
    assert not {"train_positions", "low_quality_matches", "cascade"} & set(embedded)
    assert Detection(options_of("vitdet")).protocol()["low_quality_matches"] is False
    assert Detection(options_of("vitdet-cascade")).protocol()["cascade"] == "detectron2"


def test_every_value_of_every_protocol_has_a_source():
    for name, protocol in PROTOCOLS.items():
        for path, _ in recipe_document.values(protocol.options):
            assert recipe_document.source_of(path, protocol.sources), f"{name}: {path}"
        for path in protocol.sources:
            node: Any = DetectionConfig(**protocol.options).model_dump()
            for key in path.split("."):
                assert key in node, f"{name}: source of {path}"
                node = node[key]


def test_the_embedded_protocol_is_what_ran_before_there_were_protocols():
    config = options_of("embedded")
    assert Detection.default_protocol == "embedded"
    assert config.train.clip_grad == 5.0
    plain = DetectionConfig(protocol="embedded", train={"clip_grad": 5.0})
    assert config == plain


def grey_vit() -> ViT:
    config = ViTConfig(patch_size=4, embed_dim=16, depth=2, num_heads=2)
    return ViT(config, image_size=28, in_channels=1)


REFUSED = [
    ({"strides": (6, 12)}, r"strides \(6, 12\) px are neither.*task\.strides"),
    ({"global_blocks": (7,)}, r"global_blocks \[7\] are outside this encoder's 2 blocks"),
    ({"square": True, "image_size": 90}, "image_size 90 px is not a multiple of 8 px"),
    ({"train": {"schedule": {"kind": "multistep"}}}, r"multistep schedule needs schedule\.milestones"),
    ({"train": {"schedule": {"kind": "multistep", "milestones": [9]}}}, "outside the 5 epochs"),
    ({"train": {"undecayed": ["pos_embed", "cls_tokn"]}}, r"task\.train\.undecayed: 'cls_tokn'.*mean 'cls_token'"),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED)
def test_planning_refuses_what_cannot_run(changed, message, scenes):
    with pytest.raises(InputError, match=message):
        Detection(DetectionConfig(**changed)).check(grey_vit(), scenes)


def test_planning_refuses_a_drop_path_that_reaches_nothing(scenes):
    one_block = ViT(ViTConfig(patch_size=4, embed_dim=16, depth=1, num_heads=2), image_size=28, in_channels=1)
    with pytest.raises(InputError, match=r"drop_path 0\.1 reaches no block of ViT"):
        Detection(DetectionConfig(drop_path=0.1)).check(one_block, scenes)


def test_planning_leaves_the_encoder_as_it_is(scenes):
    encoder = grey_vit()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    config = DetectionConfig(drop_path=0.2, window=3, global_blocks=(1,), train={"grad_checkpointing": True})
    Detection(config).check(encoder, scenes)
    assert encoder.windows is None
    assert not encoder.grad_checkpointing
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shorter_side": (64,)}, "shorter_side needs an image_size"),
        ({"square": True}, "square needs an image_size"),
        ({"shorter_side": (64,), "image_size": 50}, "shorter_side 64 is above image_size 50"),
        ({"shorter_side": (64,), "image_size": 90, "scale_jitter": (0.5, 2)}, "leave one out"),
        ({"precrop_side": (30,)}, "precrop_side needs shorter_side"),
        ({"recompute_boxes": True}, "recompute_boxes needs masks, which fcos does not read"),
        ({"strides": (8, 4)}, "must rise"),
        ({"cascade": "detectron2", "detector": "cascade-mask-rcnn"}, "with class_agnostic = true"),
        ({"cascade": "detectron2", "class_agnostic": True}, 'is for detector "cascade-mask-rcnn"'),
    ],
)
def test_options_that_contradict_each_other_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        DetectionConfig(**changed)


def test_empty_and_small_scenes_are_kept_or_left_out_as_asked(tmp_path):
    split = write_scenes(tmp_path, 4, size=(40, 64))
    document = json.loads(split.annotations.read_text())
    document["annotations"] = [record for record in document["annotations"] if record["image_id"] != 1]
    split.annotations.write_text(json.dumps(document))

    def count(**options: Any) -> int:
        pipeline = training_pipeline(DetectionConfig(), 1)
        return len(Scenes(split, pipeline, training=True, **options))

    assert (count(), count(keep_empty=True)) == (3, 4)
    with pytest.raises(InputError, match="no object"):
        count(least_side=41)


def test_each_map_has_a_learned_norm():
    encoder = TinyEncoder(maps=3)
    config = DetectionConfig(map_norms=True, strides=(4, 8, 16))
    detector = build_detector(config, encoder, InputConfig(image_size=28, mean=(0.5,), std=(0.5,)), classes=2, seed=0)
    maps = [each.detach() for each in detector.backbone(torch.randn(1, 1, 32, 32))]
    assert all(abs(float(each.mean(1).abs().max())) < 1e-5 for each in maps)
    assert len(list(detector.backbone.norms.parameters())) == 6
