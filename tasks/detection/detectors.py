"""The detectors as mmdet configs: FCOS, RetinaNet, Faster R-CNN and Mask R-CNN, at any scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any

from mmengine.config import ConfigDict

INF = 1e8


@dataclass(frozen=True)
class HeadOptions:
    """What the heads depend on. Lengths in px of the image that the encoder sees."""

    classes: int
    channels: int
    """Of every pyramid level and every head convolution."""
    strides: tuple[int, ...]
    convs: int
    """Convolutions before each prediction of a dense head."""
    anchor_scale: float
    """Side of the anchors, and half the reach of an FCOS level, in strides."""
    proposals: int
    """Of the first stage, an image, for the second."""
    roi_samples: int
    """RoIs an image that the second stage learns from."""
    score_threshold: float
    nms_threshold: float
    max_detections: int


def fcos(options: HeadOptions) -> dict[str, Any]:
    """FCOS (arXiv:1904.01355) with centre sampling, GIoU and centerness on the box branch."""
    bounds = [2 * options.anchor_scale * stride for stride in options.strides[:-1]]
    return {
        "type": "FCOS",
        "bbox_head": {
            "type": "FCOSHead",
            **_dense(options),
            "strides": options.strides,
            "regress_ranges": tuple(zip([-1, *bounds], [*bounds, INF], strict=True)),
            "center_sampling": True,
            "center_sample_radius": 1.5,
            "centerness_on_reg": True,
            "norm_on_bbox": True,
            "norm_cfg": _group_norm(options.channels),
            "loss_cls": _focal(),
            "loss_bbox": {"type": "GIoULoss", "loss_weight": 1.0},
            "loss_centerness": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
        },
        "train_cfg": None,
        "test_cfg": _dense_test(options),
    }


def retinanet(options: HeadOptions) -> dict[str, Any]:
    """RetinaNet (arXiv:1708.02002): three anchor sizes an octave, GroupNorm heads."""
    return {
        "type": "RetinaNet",
        "bbox_head": {
            "type": "RetinaHead",
            **_dense(options),
            "norm_cfg": _group_norm(options.channels),
            "anchor_generator": {
                "type": "AnchorGenerator",
                "octave_base_scale": options.anchor_scale,
                "scales_per_octave": 3,
                "ratios": [0.5, 1.0, 2.0],
                "strides": options.strides,
            },
            "bbox_coder": _coder(1.0, 1.0),
            "loss_cls": _focal(),
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "train_cfg": {
            "assigner": _assigner(0.5, 0.4, 0.0),
            "sampler": {"type": "PseudoSampler"},
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "test_cfg": _dense_test(options),
    }


def faster_rcnn(options: HeadOptions) -> dict[str, Any]:
    """Faster R-CNN (arXiv:1506.01497) with an FPN-style RPN and a two-layer box head."""
    return _two_stage(options, masks=False)


def mask_rcnn(options: HeadOptions) -> dict[str, Any]:
    """Mask R-CNN (arXiv:1703.06870): Faster R-CNN and a mask head."""
    return _two_stage(options, masks=True)


DETECTORS: dict[str, Callable[[HeadOptions], dict[str, Any]]] = {
    "fcos": fcos,
    "retinanet": retinanet,
    "faster-rcnn": faster_rcnn,
    "mask-rcnn": mask_rcnn,
}


def detector_config(
    name: str, options: HeadOptions, *, backbone: dict[str, Any], neck: dict[str, Any], preprocessor: dict[str, Any]
) -> ConfigDict:
    """The whole model as mmdet's MODELS.build takes it; `name` is a key of DETECTORS."""
    # The scope holds for all that is built within; without it, names would mean what the last Runner left behind.
    parts = {"data_preprocessor": preprocessor, "backbone": backbone, "neck": neck}
    return ConfigDict({"_scope_": "mmdet", **parts, **DETECTORS[name](options)})


def _two_stage(options: HeadOptions, *, masks: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "type": "MaskRCNN" if masks else "FasterRCNN",
        "rpn_head": _rpn(options),
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": _extractor(options, 7),
            "bbox_head": {
                "type": "Shared2FCBBoxHead",
                "in_channels": options.channels,
                "fc_out_channels": 4 * options.channels,
                "roi_feat_size": 7,
                "num_classes": options.classes,
                "bbox_coder": _coder(0.1, 0.2),
                "reg_class_agnostic": False,
                "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
                "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
            },
        },
        "train_cfg": {"rpn": _rpn_train(), "rpn_proposal": _proposals(options), "rcnn": _rcnn_train(options, masks)},
        "test_cfg": {
            "rpn": _proposals(options),
            "rcnn": {
                "score_thr": options.score_threshold,
                "nms": {"type": "nms", "iou_threshold": options.nms_threshold},
                "max_per_img": options.max_detections,
                "mask_thr_binary": 0.5,
            },
        },
    }
    if masks:
        config["roi_head"]["mask_roi_extractor"] = _extractor(options, 14)
        config["roi_head"]["mask_head"] = {
            "type": "FCNMaskHead",
            "num_convs": options.convs,
            "in_channels": options.channels,
            "conv_out_channels": options.channels,
            "num_classes": options.classes,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        }
    return config


def _rpn(options: HeadOptions) -> dict[str, Any]:
    return {
        "type": "RPNHead",
        "in_channels": options.channels,
        "feat_channels": options.channels,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [options.anchor_scale, options.anchor_scale * 2**0.5],
            "ratios": [0.5, 1.0, 2.0],
            "strides": options.strides,
        },
        "bbox_coder": _coder(1.0, 1.0),
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
    }


def _rpn_train() -> dict[str, Any]:
    return {
        "assigner": _assigner(0.7, 0.3, 0.3, low_quality=True),
        "sampler": {
            "type": "RandomSampler",
            "num": 256,
            "pos_fraction": 0.5,
            "neg_pos_ub": -1,
            "add_gt_as_proposals": False,
        },
        "allowed_border": -1,
        "pos_weight": -1,
        "debug": False,
    }


def _rcnn_train(options: HeadOptions, masks: bool) -> dict[str, Any]:
    return {
        "assigner": _assigner(0.5, 0.5, 0.5, low_quality=masks),
        "sampler": {
            "type": "RandomSampler",
            "num": options.roi_samples,
            "pos_fraction": 0.25,
            "neg_pos_ub": -1,
            "add_gt_as_proposals": True,
        },
        "mask_size": 28,
        "pos_weight": -1,
        "debug": False,
    }


def _proposals(options: HeadOptions) -> dict[str, Any]:
    return {
        "nms_pre": 2 * options.proposals,
        "max_per_img": options.proposals,
        "nms": {"type": "nms", "iou_threshold": 0.7},
        "min_bbox_size": 0,
    }


def _extractor(options: HeadOptions, size: int) -> dict[str, Any]:
    # As in mmdet's FPN models, the coarsest level proposes and is not pooled from.
    strides = options.strides[:-1] or options.strides
    return {
        "type": "SingleRoIExtractor",
        "roi_layer": {"type": "RoIAlign", "output_size": size, "sampling_ratio": 0},
        "out_channels": options.channels,
        "featmap_strides": strides,
        "finest_scale": 14 * strides[0],
    }


def _dense(options: HeadOptions) -> dict[str, Any]:
    return {
        "num_classes": options.classes,
        "in_channels": options.channels,
        "feat_channels": options.channels,
        "stacked_convs": options.convs,
    }


def _dense_test(options: HeadOptions) -> dict[str, Any]:
    return {
        "nms_pre": 1000,
        "min_bbox_size": 0,
        "score_thr": options.score_threshold,
        "nms": {"type": "nms", "iou_threshold": options.nms_threshold},
        "max_per_img": options.max_detections,
    }


def _assigner(positive: float, negative: float, least: float, *, low_quality: bool = True) -> dict[str, Any]:
    return {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": positive,
        "neg_iou_thr": negative,
        "min_pos_iou": least,
        "match_low_quality": low_quality,
        "ignore_iof_thr": -1,
    }


def _coder(centre: float, size: float) -> dict[str, Any]:
    return {
        "type": "DeltaXYWHBBoxCoder",
        "target_means": [0.0] * 4,
        "target_stds": [centre, centre, size, size],
    }


def _focal() -> dict[str, Any]:
    return {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}


def _group_norm(channels: int) -> dict[str, Any]:
    return {"type": "GN", "num_groups": gcd(channels, 32) if channels >= 256 else gcd(channels, 8)}
