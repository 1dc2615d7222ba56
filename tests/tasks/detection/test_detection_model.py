"""Necks, detectors and the wrapper that the engine trains."""

from __future__ import annotations

import pytest
import torch
from tiny_detection import TinyEncoder, small_config, write_scenes
from torch._subclasses.fake_tensor import FakeTensorMode

from mimbench.contract import InputConfig, InputError
from mimbench_tasks.detection.backbone import ScenePreprocessor, SimpleFeaturePyramid
from mimbench_tasks.detection.config import DetectionConfig
from mimbench_tasks.detection.detectors import DETECTORS
from mimbench_tasks.detection.model import DetectorTraining, build_detector
from mimbench_tasks.detection.pipeline import training_pipeline
from mimbench_tasks.detection.scenes import Scenes

GREY = InputConfig(image_size=28, mean=(0.25,), std=(0.5,))


def build(encoder=None, images=GREY, **options) -> DetectorTraining:
    encoder = encoder or TinyEncoder()
    config = small_config(max_detections=5, **options)
    return DetectorTraining(build_detector(config, encoder, images, classes=2, seed=0), config.train.undecayed)


def batch_of(split, masks=True, channels=1, count=2):
    config = small_config(detector="mask-rcnn" if masks else "fcos")
    scenes = Scenes(split, training_pipeline(config, channels), training=True)
    return next(iter(scenes.loader(count, seed=0, workers=0, pin_memory=False)))


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("detector", sorted(DETECTORS))
def test_one_step_trains_everything_and_predicts(detector, maps, scenes):
    model = build(TinyEncoder(maps=maps), detector=detector, strides=(4, 8, 16))
    batch = batch_of(scenes.split("train"))
    torch.manual_seed(0)
    output = model.train().training_step(batch, torch.Generator())
    assert output.loss.isfinite()
    assert output.loss.shape == ()
    assert not any("loss" in name for name in output.logs), "mmengine would add it to what is optimised"
    assert not any(value.requires_grad for value in output.logs.values())
    parts = sum(value for name, value in output.logs.items() if not name.endswith("acc"))
    torch.testing.assert_close(parts, output.loss.detach())
    output.loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []
    found = model.eval().predict(batch)
    assert [sample.img_id for sample in found] == [sample.img_id for sample in batch["data_samples"]]
    assert all(len(sample.pred_instances) <= 5 for sample in found)
    assert all(("masks" in sample.pred_instances) == detector.endswith("mask-rcnn") for sample in found)


@pytest.mark.parametrize(("own", "strides"), [(4, (4, 8, 16)), (16, (4, 8, 16, 32, 64)), (8, (4,))])
def test_simple_feature_pyramid_gives_every_stride(own, strides):
    neck = SimpleFeaturePyramid(8, own, 6, strides)
    maps = neck((torch.randn(2, 8, 128 // own, 192 // own),))
    assert [tuple(each.shape) for each in maps] == [(2, 6, 128 // stride, 192 // stride) for stride in strides]


def test_strides_follow_the_encoder():
    assert DetectionConfig().pyramid((4,)) == (4, 8)
    assert DetectionConfig().pyramid((16,)) == (4, 8, 16, 32)
    assert DetectionConfig().pyramid((4, 8, 16, 32)) == (4, 8, 16, 32)
    assert DetectionConfig(strides=(8,)).pyramid((4,)) == (8,)


@pytest.mark.parametrize(
    ("maps", "patch", "strides"), [(1, 4, (6, 12)), (1, 12, (4, 12)), (3, 4, (8, 16, 32)), (3, 4, (4, 8))]
)
def test_impossible_strides_are_named(maps, patch, strides):
    encoder = TinyEncoder(maps=maps, patch=patch)
    with pytest.raises(InputError, match=rf"strides \({strides[0]}, {strides[1]}.*encoder's"):
        small_config(strides=strides).levels(encoder)


@pytest.mark.parametrize("maps", [1, 3])
def test_extra_levels_are_every_second_cell_and_only_propose(maps):
    encoder = TinyEncoder(maps=maps)
    plain = build(encoder, detector="faster-rcnn", strides=(4, 8, 16)).detector
    config = small_config(detector="faster-rcnn", strides=(4, 8, 16), extra_levels=2)
    assert config.levels(encoder) == (4, 8, 16, 32, 64)
    more = build(encoder, detector="faster-rcnn", strides=(4, 8, 16), extra_levels=2).detector
    more.neck.load_state_dict(plain.neck.state_dict())
    images = torch.randn(1, 1, 72, 64)
    few, many = plain.extract_feat(images), more.extract_feat(images)
    assert len(many) == 5
    torch.testing.assert_close(many[:3], few)
    assert torch.equal(many[3], many[2][..., ::2, ::2])
    assert torch.equal(many[4], many[3][..., ::2, ::2])
    assert more.roi_head.bbox_roi_extractor.featmap_strides == (4, 8, 16)


def test_the_detector_sees_what_pretraining_saw(scenes):
    """Pixels normalised by the recipe's mean and std, then padded with zeros."""
    model = build()
    batch = batch_of(scenes.split("train"))
    data = model.detector.data_preprocessor(batch, True)
    raw = torch.stack(batch["inputs"]).float()
    torch.testing.assert_close(data["inputs"], (raw / 255 - 0.25) / 0.5)


def test_an_odd_image_is_padded_to_what_patch_and_strides_divide(tmp_path):
    split = write_scenes(tmp_path, 2, size=(45, 61))
    model = build(detector="mask-rcnn")
    batch = batch_of(split)
    data = model.detector.data_preprocessor(batch, True)
    assert data["inputs"].shape[-2:] == (48, 64)
    assert not data["inputs"][..., 45:, :].any()
    assert model.training_step(batch, torch.Generator()).loss.isfinite()
    model.eval()
    for sample in model.predict(batch):
        boxes = sample.pred_instances.bboxes
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([61, 45, 61, 45])).all()
        assert sample.pred_instances.masks.shape[1:] == (45, 61)


@pytest.mark.parametrize(("channels", "mode"), [(1, "RGB"), (3, "L"), (3, "RGB")])
def test_grey_and_colour_convert_into_each_other(channels, mode, tmp_path):
    split = write_scenes(tmp_path, 2, mode=mode)
    images = InputConfig(image_size=28, mean=(0.5,) * channels, std=(0.5,) * channels)
    model = build(TinyEncoder(in_channels=channels), images)
    batch = batch_of(split, channels=channels)
    assert batch["inputs"][0].shape == (channels, 64, 64)
    assert model.training_step(batch, torch.Generator()).loss.isfinite()


def test_mean_of_the_wrong_length_is_named():
    with pytest.raises(InputError, match=r"input\.mean has 3 values and the images have 1 channel"):
        build(images=InputConfig(image_size=28))


def test_the_preprocessor_follows_the_model_that_holds_it():
    """mmdet's own would stay on the CPU when a module around the detector moves."""
    holder = torch.nn.ModuleDict({"inner": ScenePreprocessor(mean=[0.0], std=[1.0])})
    holder.to("meta")
    assert holder["inner"].device.type == "meta"


def test_layers_for_layer_decay_are_the_encoders():
    model = build()
    assert model.num_layers == 2
    assert model.layer_of("detector.backbone.encoder.stem.weight") == 0
    assert model.layer_of("detector.backbone.encoder.blocks.1.weight") == 2
    assert model.layer_of("detector.bbox_head.conv_cls.weight") == 3
    names = {name for name, _ in model.named_parameters()}
    assert model.no_weight_decay() == {"detector.backbone.encoder.stem.weight"} <= names


def test_the_loss_follows_the_seed_alone(scenes):
    def loss() -> float:
        torch.manual_seed(7)
        model = build(detector="faster-rcnn", strides=(4, 8))
        return model.training_step(batch_of(scenes.split("train")), torch.Generator()).loss.item()

    assert loss() == loss()


@pytest.mark.parametrize("detector", sorted(DETECTORS))
def test_a_step_under_bf16_autocast(detector, scenes):
    """The engine's default precision on CUDA."""
    model = build(detector=detector, strides=(4, 8, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.training_step(batch_of(scenes.split("train")), torch.Generator())
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("detector", ["fcos", "retinanet"])
def test_the_forward_pass_mixes_no_devices(detector, maps):
    """Fake tensors play CUDA where there is none, and raise where a CPU tensor slips in."""
    model = build(TinyEncoder(maps=maps), detector=detector, strides=(4, 8, 16)).detector
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with FakeTensorMode():
        on_cuda = {name: torch.empty(value.shape, device="cuda") for name, value in state.items()}
        images = torch.empty(2, 1, 64, 64, device="cuda")
        outputs = torch.func.functional_call(model, on_cuda, (images,), {"mode": "tensor"})
        assert all(level.device.type == "cuda" for head in outputs for level in head)
        assert [level.shape[-1] for level in outputs[0]] == [16, 8, 4]
