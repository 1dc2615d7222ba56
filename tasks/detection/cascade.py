"""Cascade R-CNN as detectron2 has it, which ViTDet was trained with; mmdet's own joins the stages in another way."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.task_modules import SamplingResult
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor


@MODELS.register_module()
class SharedSampleCascade(CascadeRoIHead):
    """Three box heads and one mask head on RoIs that are sampled once.

    As detectron2@1b09e42c detectron2/modeling/roi_heads/cascade_rcnn.py: RoIs are sampled for the first stage only,
    and each stage matches the boxes of the one before anew; its losses all weigh 1, and its gradient reaches the
    features divided by the number of stages; the mask head is trained on the sampled objects and used on the last
    stage's boxes; a detection's score is the mean of the stages' probabilities. mmdet's CascadeRoIHead samples in every
    stage, has a mask head for each, and averages logits.
    """

    # One mask head, trained and used as in Mask R-CNN.
    init_mask_head = StandardRoIHead.init_mask_head
    _mask_forward = StandardRoIHead._mask_forward
    predict_mask = StandardRoIHead.predict_mask

    def loss(self, x: tuple[Tensor, ...], rpn_results_list: list[InstanceData], batch_data_samples: Any) -> dict:
        """Losses by stage, "s0.loss_cls" and so on, and "loss_mask"."""
        truths, ignored, metas = unpack_gt_instances(batch_data_samples)
        sampled = []
        for proposals, truth, ignore in zip(rpn_results_list, truths, ignored, strict=True):
            proposals.priors = proposals.pop("bboxes")
            matched = self.bbox_assigner[0].assign(proposals, truth, ignore)
            sampled.append(self.bbox_sampler[0].sample(matched, proposals, truth))
        losses: dict[str, Tensor] = {}
        current = sampled
        for stage, head in enumerate(self.bbox_head):
            result = self.bbox_loss(stage, x, current)
            losses |= {f"s{stage}.{name}": value for name, value in result["loss_bbox"].items()}
            if stage + 1 < self.num_stages:
                counts = [len(each.priors) for each in current]
                boxes = self._refined(head, result["rois"], result["bbox_pred"], counts, metas)
                current = [self._match(stage + 1, *each) for each in zip(boxes, truths, ignored, strict=True)]
        return losses | self._mask_loss(x, sampled, truths)

    def _bbox_forward(self, stage: int, x: tuple[Tensor, ...], rois: Tensor) -> dict:
        # RoIAlign is linear: what scales the gradient of its input scales that of its output.
        return super()._bbox_forward(stage, tuple(_ScaledGradient.apply(each, 1 / self.num_stages) for each in x), rois)

    def _refine_roi(
        self, x: tuple[Tensor, ...], rois: Tensor, batch_img_metas: Any, num_proposals_per_img: Any, **_: Any
    ) -> tuple:
        """RoIs and box deltas of the last stage, and as class scores the logarithm of the mean probability."""
        counts, probabilities = list(num_proposals_per_img), []
        for stage, head in enumerate(self.bbox_head):
            result = self._bbox_forward(stage, x, rois)
            probabilities.append(result["cls_score"].float().softmax(-1))
            if stage < self.num_stages - 1:
                rois = bbox2roi(self._refined(head, rois, result["bbox_pred"], counts, batch_img_metas))
        scores = torch.stack(probabilities).mean(0).log()
        return rois.split(counts), scores.split(counts), result["bbox_pred"].split(counts)

    def _match(self, stage: int, boxes: Tensor, truth: InstanceData, ignore: InstanceData) -> SamplingResult:
        """All boxes of an image that are not empty, as objects or background by the stage's overlap."""
        boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
        matched = self.bbox_assigner[stage].assign(InstanceData(priors=boxes), truth, ignore)
        return SamplingResult(
            (matched.gt_inds > 0).nonzero().flatten(),
            (matched.gt_inds == 0).nonzero().flatten(),
            boxes,
            truth.bboxes,
            matched,
            boxes.new_zeros(len(boxes), dtype=torch.uint8),
        )

    def _mask_loss(self, x: tuple[Tensor, ...], sampled: list[SamplingResult], truths: list[InstanceData]) -> dict:
        predicted = self._mask_forward(x, bbox2roi([each.pos_priors for each in sampled]))["mask_preds"]
        return self.mask_head.loss_and_target(predicted, sampled, truths, self.train_cfg[0])["loss_mask"]

    @staticmethod
    def _refined(head: Any, rois: Tensor, deltas: Tensor, counts: list[int], metas: Any) -> list[Tensor]:
        """The boxes that a class-agnostic head makes of RoIs, for each image, cut off at its edges."""
        with torch.no_grad():
            return [
                head.regress_by_class(boxes[:, 1:], None, each, meta)
                for boxes, each, meta in zip(rois.split(counts), deltas.split(counts), metas, strict=True)
            ]


class _ScaledGradient(torch.autograd.Function):
    """The identity; its gradient is scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale, None
