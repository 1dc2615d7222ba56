"""The detectors with a region proposal network, as mmdet configs: Faster R-CNN, Mask R-CNN and its cascade."""

from __future__ import annotations

from typing import Any

from mimbench_tasks.detection.cascade import SharedSampleCascade
from mimbench_tasks.detection.config import DetectionConfig
from mimbench_tasks.detection.heads import Heads, assigner, coder, norm_layer

CASCADE_WEIGHTS = [1.0, 0.5, 0.25]
CASCADE_STDS = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))
CASCADE_IOUS = (0.5, 0.6, 0.7)
"""Of the three stages (Cascade R-CNN, arXiv:1906.09756), as mmdet has them: weight of the losses, deviation of box
centres and sizes, and the overlap from which a RoI is an object."""


def faster_rcnn(heads: Heads) -> dict[str, Any]:
    """Faster R-CNN (arXiv:1506.01497) with an FPN-style RPN."""
    return _two_stage("FasterRCNN", heads, _standard(heads), _rcnn_train(heads.config, 0.5, low_quality=False))


def mask_rcnn(heads: Heads) -> dict[str, Any]:
    """Mask R-CNN (arXiv:1703.06870): Faster R-CNN and a mask head."""
    config = heads.config
    roi_head = {**_standard(heads), **_masks(heads)}
    return _two_stage("MaskRCNN", heads, roi_head, _rcnn_train(config, 0.5, low_quality=config.low_quality_matches))


def cascade_mask_rcnn(heads: Heads) -> dict[str, Any]:
    """Cascade Mask R-CNN (arXiv:1906.09756): three box heads, each from the boxes of the one before."""
    shared = heads.config.cascade == "detectron2"
    roi_head = {
        "type": SharedSampleCascade.__name__ if shared else "CascadeRoIHead",
        "num_stages": len(CASCADE_IOUS),
        "stage_loss_weights": [1.0] * 3 if shared else CASCADE_WEIGHTS,
        "bbox_roi_extractor": _extractor(heads, 7),
        "bbox_head": [_box_head(heads, *stds) for stds in CASCADE_STDS],
        **_masks(heads),
    }
    stages = [_rcnn_train(heads.config, iou, low_quality=False) for iou in CASCADE_IOUS]
    return _two_stage("CascadeRCNN", heads, roi_head, stages)


def _two_stage(type_: str, heads: Heads, roi_head: dict[str, Any], rcnn_train: Any) -> dict[str, Any]:
    config = heads.config
    in_training, in_testing = config.candidates or (2 * config.proposals,) * 2
    return {
        "type": type_,
        "rpn_head": _rpn(heads),
        "roi_head": roi_head,
        "train_cfg": {
            "rpn": _rpn_train(),
            "rpn_proposal": _proposals(config, in_training),
            "rcnn": rcnn_train,
        },
        "test_cfg": {
            "rpn": _proposals(config, in_testing),
            "rcnn": {
                "score_thr": config.score_threshold,
                "nms": {"type": "nms", "iou_threshold": config.nms_threshold},
                "max_per_img": config.max_detections,
                "mask_thr_binary": 0.5,
            },
        },
    }


def _standard(heads: Heads) -> dict[str, Any]:
    return {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": _extractor(heads, 7),
        "bbox_head": _box_head(heads, 0.1, 0.2),
    }


def _box_head(heads: Heads, centre: float, size: float) -> dict[str, Any]:
    config = heads.config
    return {
        "type": "ConvFCBBoxHead",
        "num_shared_convs": config.box_convs,
        "num_shared_fcs": config.box_fcs,
        "in_channels": config.channels,
        "conv_out_channels": config.channels,
        "fc_out_channels": 4 * config.channels,
        "roi_feat_size": 7,
        "num_classes": heads.classes,
        "norm_cfg": norm_layer(config.box_norm, config.channels),
        "bbox_coder": coder(centre, size),
        "reg_class_agnostic": config.class_agnostic,
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
    }


def _masks(heads: Heads) -> dict[str, Any]:
    config = heads.config
    return {
        "mask_roi_extractor": _extractor(heads, 14),
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": config.convs,
            "in_channels": config.channels,
            "conv_out_channels": config.channels,
            "num_classes": heads.classes,
            "norm_cfg": norm_layer(config.mask_norm, config.channels),
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        },
    }


def _rpn(heads: Heads) -> dict[str, Any]:
    config = heads.config
    return {
        "type": "RPNHead",
        "in_channels": config.channels,
        "feat_channels": config.channels,
        "num_convs": config.rpn_convs,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [config.anchor_scale * 2 ** (step / config.anchors) for step in range(config.anchors)],
            "ratios": [0.5, 1.0, 2.0],
            "strides": heads.strides,
        },
        "bbox_coder": coder(1.0, 1.0),
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
    }


def _rpn_train() -> dict[str, Any]:
    return {
        "assigner": assigner(0.7, 0.3, 0.3),
        "sampler": _sampler(256, 0.5, add_gt_as_proposals=False),
        "allowed_border": -1,
        "pos_weight": -1,
        "debug": False,
    }


def _rcnn_train(config: DetectionConfig, iou: float, *, low_quality: bool) -> dict[str, Any]:
    return {
        "assigner": assigner(iou, iou, iou, low_quality=low_quality),
        "sampler": _sampler(config.roi_samples, 0.25, add_gt_as_proposals=True),
        "mask_size": 28,
        "pos_weight": -1,
        "debug": False,
    }


def _sampler(count: int, positive: float, *, add_gt_as_proposals: bool) -> dict[str, Any]:
    return {
        "type": "RandomSampler",
        "num": count,
        "pos_fraction": positive,
        "neg_pos_ub": -1,
        "add_gt_as_proposals": add_gt_as_proposals,
    }


def _proposals(config: DetectionConfig, candidates: int) -> dict[str, Any]:
    return {
        "nms_pre": candidates,
        "max_per_img": config.proposals,
        "nms": {"type": "nms", "iou_threshold": 0.7},
        "min_bbox_size": 0,
    }


def _extractor(heads: Heads, size: int) -> dict[str, Any]:
    # As in mmdet's FPN models, the coarsest level (or the extra ones) proposes and is not pooled from.
    strides = heads.strides[: -max(1, heads.config.extra_levels)] or heads.strides
    return {
        "type": "SingleRoIExtractor",
        "roi_layer": {"type": "RoIAlign", "output_size": size, "sampling_ratio": 0},
        "out_channels": heads.channels,
        "featmap_strides": strides,
        "finest_scale": 14 * strides[0],
    }
