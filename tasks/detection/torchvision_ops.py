"""The mmcv ops that the detectors need, implemented with torchvision for CPU and CUDA.

Signatures are those of mmcv's C++ bindings, which write results into tensors that the caller passes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import mmcv
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from mimbench.api import NotSupported
from mimbench_tasks.detection import mmcv_extension


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Non-maximum suppression. A box is dropped if its IoU with a better one exceeds the threshold.

    Args:
        boxes: [N, 4] x1, y1, x2, y2.
        scores: [N].
        offset: 1 counts pixels inclusively: width = x2 - x1 + 1.

    Returns:
        Indices [K] of the remaining boxes, best first.
    """
    # Growing every box by the offset gives the same widths and the same intersections.
    grown = _wide(boxes) + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(grown, _wide(scores), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (arXiv:1704.04503): overlapping boxes get a lower score instead of being dropped.

    Args:
        boxes: [N, 4] x1, y1, x2, y2.
        scores: [N].
        dets: [N, 5]; its first K rows are overwritten with the remaining boxes and their new scores, best first.
        method: 0 hard, 1 linear, 2 Gaussian.

    Returns:
        Indices [K] of the remaining boxes, best first.
    """
    scores, index = scores.clone(), torch.arange(len(boxes))
    grown = boxes + boxes.new_tensor([0, 0, offset, offset])
    selected: list[int] = []
    while len(index):
        position = int(scores[index].argmax())
        best = index[position]
        dets[len(selected)] = torch.cat((boxes[best], scores[best, None]))
        selected.append(int(best))
        index = torch.cat((index[:position], index[position + 1 :]))
        overlap = torchvision.ops.box_iou(grown[best, None], grown[index])[0]
        scores[index] *= _soft_weight(overlap, iou_threshold, sigma, method)
        index = index[scores[index] >= min_score]
    return torch.tensor(selected, dtype=torch.long)


def _soft_weight(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    if method == 2:
        return torch.exp(-(overlap**2) / sigma)
    over = overlap >= iou_threshold
    return torch.where(over, 1 - overlap if method == 1 else torch.zeros_like(overlap), torch.ones_like(overlap))


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign: input [B, C, H, W] and rois [K, 5] (image, x1, y1, x2, y2) -> output [K, C, h, w], in place."""
    _require_average_pooling(pool_mode)
    output.copy_(
        torch.ops.torchvision.roi_align(
            _wide(input), _wide(rois), spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of roi_align_forward: grad_output [K, C, h, w] -> grad_input [B, C, H, W], in place."""
    _require_average_pooling(pool_mode)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            _wide(grad_output),
            _wide(rois),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Focal loss (arXiv:1708.02002) of logits [N, C] against labels [N]; label C is background.

    mmdet uses this op on CUDA only, and its own code on the CPU.
    """
    output.copy_(_focal(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Gradient of the summed focal loss by the logits, [N, C], in place."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        grad_input.copy_(torch.autograd.grad(_focal(logits, target, weight, gamma, alpha).sum(), logits)[0])


def _focal(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    if weight.numel():
        raise NotSupported(
            f"the mmcv op 'sigmoid_focal_loss' with class weights is compiled code; {mmcv_extension.HOW_TO_INSTALL}"
        )
    classes = logits.shape[1]
    one_hot = F.one_hot(target, classes + 1)[:, :classes].to(logits.dtype)
    return torchvision.ops.sigmoid_focal_loss(logits, one_hot, alpha=alpha, gamma=gamma, reduction="none")


def _require_average_pooling(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotSupported(
            "the mmcv op 'roi_align' with pool_mode='max' is compiled code; use 'avg', or "
            f"{mmcv_extension.HOW_TO_INSTALL}"
        )


def _wide(tensor: Tensor) -> Tensor:
    """As float32 if it has half precision: torchvision's kernels take no bfloat16, and on the CPU no float16."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


SUPPLIED: dict[str, Callable[..., Any]] = {
    op.__name__: op
    for op in (
        nms,
        softnms,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
    )
}


def ops_report() -> dict[str, Any]:
    """Which of mmcv's ops are compiled, which this module supplies, and which are missing.

    Returns:
        "mmcv": version. "compiled", "supplied", "missing": sorted names. "problem": why an installed compiled
        extension does not load, or None.
    """
    report: dict[str, Any] = {"mmcv": mmcv.__version__, "compiled": [], "supplied": [], "missing": []}
    try:
        extension = importlib.import_module(mmcv_extension.NAME)
        importlib.import_module("mmcv.ops")
    except ImportError as error:
        return {**report, "problem": f"{error}; {mmcv_extension.HOW_TO_INSTALL}"}
    for name, op in sorted(vars(extension).items()):
        if name.startswith("_") or not callable(op):
            continue
        if isinstance(op, mmcv_extension.MissingOp):
            report["missing"].append(name)
        elif op is SUPPLIED.get(name):
            report["supplied"].append(name)
        else:
            report["compiled"].append(name)
    return {**report, "problem": None}
