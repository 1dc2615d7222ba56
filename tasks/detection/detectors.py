"""The detectors as mmdet configs, at any scale: FCOS, RetinaNet, Faster R-CNN, Mask R-CNN and its cascade."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mimbench_tasks.detection.config import DetectionConfig
from mimbench_tasks.detection.heads import Heads, assigner, coder, group_norm
from mimbench_tasks.detection.two_stage import cascade_mask_rcnn, faster_rcnn, mask_rcnn

INF = 1e8


def fcos(heads: Heads) -> dict[str, Any]:
    """FCOS (arXiv:1904.01355) with centre sampling, GIoU and centerness on the box branch."""
    bounds = [2 * heads.config.anchor_scale * stride for stride in heads.strides[:-1]]
    return {
        "type": "FCOS",
        "bbox_head": {
            "type": "FCOSHead",
            **_dense(heads),
            "strides": heads.strides,
            "regress_ranges": tuple(zip([-1, *bounds], [*bounds, INF], strict=True)),
            "center_sampling": True,
            "center_sample_radius": 1.5,
            "centerness_on_reg": True,
            "norm_on_bbox": True,
            "norm_cfg": group_norm(heads.channels),
            "loss_cls": _focal(),
            "loss_bbox": {"type": "GIoULoss", "loss_weight": 1.0},
            "loss_centerness": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
        },
        "train_cfg": None,
        "test_cfg": _dense_test(heads.config),
    }


def retinanet(heads: Heads) -> dict[str, Any]:
    """RetinaNet (arXiv:1708.02002): three anchor sizes an octave, GroupNorm heads."""
    return {
        "type": "RetinaNet",
        "bbox_head": {
            "type": "RetinaHead",
            **_dense(heads),
            "norm_cfg": group_norm(heads.channels),
            "anchor_generator": {
                "type": "AnchorGenerator",
                "octave_base_scale": heads.config.anchor_scale,
                "scales_per_octave": 3,
                "ratios": [0.5, 1.0, 2.0],
                "strides": heads.strides,
            },
            "bbox_coder": coder(1.0, 1.0),
            "loss_cls": _focal(),
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "train_cfg": {
            "assigner": assigner(0.5, 0.4, 0.0),
            "sampler": {"type": "PseudoSampler"},
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "test_cfg": _dense_test(heads.config),
    }


DETECTORS: dict[str, Callable[[Heads], dict[str, Any]]] = {
    "fcos": fcos,
    "retinanet": retinanet,
    "faster-rcnn": faster_rcnn,
    "mask-rcnn": mask_rcnn,
    "cascade-mask-rcnn": cascade_mask_rcnn,
}


def _dense(heads: Heads) -> dict[str, Any]:
    return {
        "num_classes": heads.classes,
        "in_channels": heads.channels,
        "feat_channels": heads.channels,
        "stacked_convs": heads.config.convs,
    }


def _dense_test(config: DetectionConfig) -> dict[str, Any]:
    return {
        "nms_pre": 1000,
        "min_bbox_size": 0,
        "score_thr": config.score_threshold,
        "nms": {"type": "nms", "iou_threshold": config.nms_threshold},
        "max_per_img": config.max_detections,
    }


def _focal() -> dict[str, Any]:
    return {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}
