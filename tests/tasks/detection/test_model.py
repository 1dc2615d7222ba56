"""Necks, detectors and the wrapper that the engine trains."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.roi_heads import CascadeRoIHead
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmengine.structures import InstanceData
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.ops import box_iou

from helpers.tiny_detection import TinyEncoder, small_config, write_scenes
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
    samples = model.eval().predict(batch)
    assert [sample.img_id for sample in samples] == [sample.img_id for sample in batch["data_samples"]]
    assert all(len(sample.pred_instances) <= 5 for sample in samples)
    assert all(("masks" in sample.pred_instances) == detector.endswith("mask-rcnn") for sample in samples)


CASCADES = {
    "mmdet": (3, {f"s{stage}.loss_{part}" for stage in range(3) for part in ("cls", "bbox", "mask")}),
    "detectron2": (1, {f"s{stage}.loss_{part}" for stage in range(3) for part in ("cls", "bbox")} | {"loss_mask"}),
}
"""Number of mask heads, and names of the losses."""


def cascade(kind: str, encoder=None, **options) -> DetectorTraining:
    options = {"class_agnostic": True, "strides": (4, 8, 16), "cascade": kind} | options
    return build(encoder, detector="cascade-mask-rcnn", **options)


@pytest.mark.parametrize("kind", CASCADES)
def test_a_cascade_is_mmdets_or_detectron2s(kind, scenes):
    detector = cascade(kind).detector
    heads, names = CASCADES[kind]
    assert sum(isinstance(module, FCNMaskHead) for module in detector.modules()) == heads
    assert sum(isinstance(module, ConvFCBBoxHead) for module in detector.modules()) == 3
    assert detector.roi_head.stage_loss_weights == {"mmdet": [1.0, 0.5, 0.25], "detectron2": [1.0] * 3}[kind]
    data = detector.data_preprocessor(batch_of(scenes.split("train")), True)
    torch.manual_seed(0)
    losses = detector.loss(data["inputs"], data["data_samples"])
    assert {name for name in losses if "loss" in name and "rpn" not in name} == names


def equal_stages(detector, scenes):
    """The cascade's head with three stages that are one: the same weights, boxes that stay, the same overlap."""
    head = detector.roi_head
    torch.manual_seed(1)
    for parameter in head.bbox_head[0].parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    torch.nn.init.zeros_(head.bbox_head[0].fc_reg.weight), torch.nn.init.zeros_(head.bbox_head[0].fc_reg.bias)
    for stage in (1, 2):
        head.bbox_head[stage] = head.bbox_head[0]
        head.bbox_assigner[stage] = head.bbox_assigner[0]
    data = detector.data_preprocessor(batch_of(scenes.split("train")), True)
    maps = tuple(torch.randn(2, 16, 64 // stride, 64 // stride) for stride in (4, 8, 16))
    proposals = []
    for _ in data["data_samples"]:
        boxes = torch.rand(30, 4, generator=torch.Generator().manual_seed(0)) * 40
        boxes[:, 2:] += boxes[:, :2] + 8
        proposals.append(InstanceData(bboxes=boxes.clamp(max=64)))
    return head, maps, proposals, data["data_samples"]


def test_features_get_the_mean_of_the_gradients_of_the_stages_and_heads_their_sum(scenes):
    head, maps, proposals, samples = equal_stages(cascade("detectron2").detector, scenes)
    maps = tuple(each.requires_grad_() for each in maps)
    torch.manual_seed(0)
    losses = head.loss(maps, proposals, samples)
    for part in ("loss_cls", "loss_bbox"):
        torch.testing.assert_close(losses[f"s0.{part}"], losses[f"s1.{part}"])
        torch.testing.assert_close(losses[f"s0.{part}"], losses[f"s2.{part}"])
    weight = head.bbox_head[0].fc_cls.weight

    def gradients(*names):
        return torch.autograd.grad(
            sum(losses[name] for name in names), [*maps[:2], weight], retain_graph=True
        )  # none is pooled from the coarsest

    single = gradients("s0.loss_cls", "s0.loss_bbox")
    every = gradients(*(name for name in losses if "loss_cls" in name or "loss_bbox" in name))
    assert any(bool(each.any()) for each in single[:-1])
    for one, total in zip(single[:-1], every[:-1], strict=True):
        # One stage alone already arrives divided by three; three equal ones add up to one undivided.
        torch.testing.assert_close(total, 3 * one)
    torch.testing.assert_close(every[-1], 3 * single[-1])
    head._bbox_forward = lambda *arguments: CascadeRoIHead._bbox_forward(head, *arguments)
    torch.manual_seed(0)
    again = [InstanceData(bboxes=each.priors) for each in proposals]
    plain = head.loss(maps, again, samples)
    whole = torch.autograd.grad(plain["s0.loss_cls"] + plain["s0.loss_bbox"], maps[:2])
    for mean, one in zip(every[:-1], whole, strict=True):
        torch.testing.assert_close(mean, one)


def test_stages_of_detectron2s_cascade_see_the_same_rois_and_later_ones_want_more_overlap(scenes):
    model = cascade("detectron2")
    seen = []
    bbox_loss = model.detector.roi_head.bbox_loss
    model.detector.roi_head.bbox_loss = lambda stage, x, sampled: seen.append(sampled) or bbox_loss(stage, x, sampled)
    torch.manual_seed(0)
    model.training_step(batch_of(scenes.split("train")), torch.Generator())
    counts = [[len(each.priors) for each in sampled] for sampled in seen]
    assert counts[0] == [8, 8]
    assert all(later <= first for stage in counts[1:] for later, first in zip(stage, counts[0], strict=True))
    for sampled, least in zip(seen, (0.5, 0.6, 0.7), strict=True):
        for each in sampled:
            overlaps = box_iou(each.pos_priors, each.pos_gt_bboxes).diagonal()
            assert (overlaps >= least - 1e-6).all()


def test_detectron2s_cascade_scores_by_mean_probabilities_and_draws_masks_of_the_last_boxes(scenes):
    model = cascade("detectron2").eval()
    head = model.detector.roi_head
    maps = tuple(torch.randn(1, 16, 64 // stride, 64 // stride) for stride in (4, 8, 16))
    rois = torch.tensor([[0.0, 4, 4, 30, 30], [0, 10, 20, 50, 60]])
    with torch.no_grad():
        last, scores, deltas = head._refine_roi(maps, rois, [{"img_shape": (64, 64)}], (2,))
        stages = []
        for stage in range(3):
            outputs = head._bbox_forward(stage, maps, rois)
            stages.append(outputs["cls_score"].softmax(-1))
            if stage < 2:
                boxes = head.bbox_head[stage].regress_by_class(
                    rois[:, 1:], None, outputs["bbox_pred"], {"img_shape": (64, 64)}
                )
                rois = torch.cat((rois[:, :1], boxes), 1)
    torch.testing.assert_close(scores[0].softmax(-1), sum(stages) / 3)
    torch.testing.assert_close(last[0], rois)
    assert deltas[0].shape == (2, 4)


def test_detectron2s_cascade_takes_scenes_without_objects(scenes):
    model = cascade("detectron2")
    batch = batch_of(scenes.split("train"))
    empty = batch["data_samples"][0].gt_instances[:0]
    for sample in batch["data_samples"]:
        sample.gt_instances = empty
    model.training_step(batch, torch.Generator()).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("low_quality", [True, False])
def test_matches_of_low_quality_are_an_option_of_mask_rcnn(low_quality):
    model = build(detector="mask-rcnn", low_quality_matches=low_quality, strides=(4, 8))
    assert model.detector.roi_head.bbox_assigner.match_low_quality is low_quality
    assert model.detector.rpn_head.assigner.match_low_quality


@pytest.mark.parametrize(("map_stride", "strides"), [(4, (4, 8, 16)), (16, (4, 8, 16, 32, 64)), (8, (4,))])
def test_simple_feature_pyramid_gives_every_stride(map_stride, strides):
    neck = SimpleFeaturePyramid(8, map_stride, 6, strides)
    maps = neck((torch.randn(2, 8, 128 // map_stride, 192 // map_stride),))
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


def test_the_loss_depends_on_the_seed_only(scenes):
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
