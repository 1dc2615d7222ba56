"""Every op that stands in for mmcv's compiled ones, against plain loops: forward and gradient."""

from __future__ import annotations

import importlib
import importlib.util
import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from mimbench.errors import NotSupported
from mimbench_tasks.detection import mmcv_extension
from mimbench_tasks.detection.torchvision_ops import SUPPLIED, ops_report

mmcv_ops = pytest.importorskip("mmcv.ops")
supplied = pytest.mark.skipif(
    bool(ops_report()["compiled"]), reason="this mmcv has its compiled ops, so nothing stands in for them"
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def plain_iou(a: list[float], b: list[float], offset: float) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float, offset: float) -> list[int]:
    remaining: list[int] = []
    rows = boxes.tolist()
    for index in scores.argsort(descending=True).tolist():
        if all(plain_iou(rows[index], rows[other], offset) <= threshold for other in remaining):
            remaining.append(index)
    return remaining


def random_boxes(count: int, size: float = 16.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * size
    extent = 6 + torch.rand(count, 2, generator=generator) * size
    return torch.cat((corner, corner + extent), 1), torch.rand(count, generator=generator)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
def test_nms(threshold, offset, device):
    boxes, scores = random_boxes(60)
    dets, indices = mmcv_ops.nms(boxes.to(device), scores.to(device), threshold, offset=offset)
    expected = plain_nms(boxes, scores, threshold, offset)
    assert indices.tolist() == expected
    assert 1 < len(expected) < 60
    torch.testing.assert_close(dets.cpu(), torch.cat((boxes, scores[:, None]), 1)[expected])


def test_nms_keeps_a_box_at_the_threshold():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]])  # IoU 1/2, exactly
    scores = torch.tensor([0.9, 0.8])
    assert mmcv_ops.nms(boxes, scores, 0.5)[1].tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, scores, 0.49)[1].tolist() == [0]


def test_nms_offset_counts_pixels_inclusively():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [10.0, 0.0, 19.0, 9.0], [9.0, 0.0, 19.0, 9.0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    # With pixels 0 to 9 and 9 to 19, box 2 shares one column with box 0 only if both ends count.
    assert mmcv_ops.nms(boxes, scores, 0.04, offset=0)[1].tolist() == [0, 1]
    assert mmcv_ops.nms(boxes[[0, 2]], scores[[0, 2]], 0.04, offset=0)[1].tolist() == [0, 1]
    assert mmcv_ops.nms(boxes[[0, 2]], scores[[0, 2]], 0.04, offset=1)[1].tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nms_in_half_precision(dtype):
    boxes, scores = (tensor.to(dtype) for tensor in random_boxes(20))
    assert mmcv_ops.nms(boxes, scores, 0.5)[1].tolist() == plain_nms(boxes.float(), scores.float(), 0.5, 0)


def test_nms_without_boxes_and_with_limits():
    assert mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)[1].tolist() == []
    boxes, scores = random_boxes(30)
    expected = plain_nms(boxes, scores, 0.5, 0)
    assert mmcv_ops.nms(boxes, scores, 0.5, max_num=3)[1].tolist() == expected[:3]
    above = [index for index in expected if scores[index] > 0.6]
    assert mmcv_ops.nms(boxes, scores, 0.5, score_threshold=0.6)[1].tolist() == above


def test_batched_nms_keeps_classes_separate(device):
    boxes, scores = random_boxes(60, seed=1)
    labels = torch.arange(60) % 3
    dets, indices = mmcv_ops.batched_nms(
        boxes.to(device), scores.to(device), labels.to(device), {"type": "nms", "iou_threshold": 0.4}
    )
    expected = []
    for label in range(3):
        rows = (labels == label).nonzero()[:, 0]
        expected += rows[plain_nms(boxes[rows], scores[rows], 0.4, 0)].tolist()
    expected.sort(key=lambda index: -scores[index])
    assert indices.tolist() == expected
    torch.testing.assert_close(dets[:, 4].cpu(), scores[expected])


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms(method, offset):
    boxes, scores = random_boxes(25, seed=2)
    dets, indices = mmcv_ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    rows, remaining, expected = boxes.tolist(), dict(enumerate(scores.tolist())), []
    while remaining:
        best = max(remaining, key=remaining.__getitem__)
        expected.append((best, remaining.pop(best)))
        for other in list(remaining):
            iou = plain_iou(rows[best], rows[other], offset)
            soft = math.exp(-(iou**2) / 0.5) if method == "gaussian" else 1 - iou if method == "linear" else 0.0
            remaining[other] *= soft if method == "gaussian" or iou >= 0.3 else 1.0
            if remaining[other] < 0.05:
                del remaining[other]
    assert indices.tolist() == [index for index, _ in expected]
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in expected]))
    torch.testing.assert_close(dets[:, :4], boxes[indices])


def plain_bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """image [C, H, W] at a point; nothing beyond one pixel outside, the border up to there."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.new_zeros(image.shape[0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = image[:, y0, x0] * (1 - (x - x0)) + image[:, y0, x1] * (x - x0)
    bottom = image[:, y1, x0] * (1 - (x - x0)) + image[:, y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + bottom * (y - y0)


def plain_roi_align(images: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool):
    output = []
    for image, *box in rois.tolist():
        left, top, right, bottom = (value * scale - (0.5 if aligned else 0.0) for value in box)
        extent = [bottom - top, right - left]
        if not aligned:
            extent = [max(value, 1.0) for value in extent]
        cell = [extent[0] / size[0], extent[1] / size[1]]
        points = [ratio if ratio > 0 else math.ceil(value) for value in cell]
        cells = []
        for row in range(size[0]):
            for column in range(size[1]):
                values = [
                    plain_bilinear(
                        images[int(image)],
                        top + cell[0] * (row + (i + 0.5) / points[0]),
                        left + cell[1] * (column + (j + 0.5) / points[1]),
                    )
                    for i in range(points[0])
                    for j in range(points[1])
                ]
                cells.append(torch.stack(values).mean(0))
        output.append(torch.stack(cells, -1).unflatten(-1, size))
    return torch.stack(output)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_and_its_gradient(ratio, aligned, device):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 3, 7, 9, generator=generator, dtype=torch.float64)
    rois = torch.tensor(
        [[0, 1.0, 2.0, 11.0, 12.5], [1, 0.0, 0.0, 18.0, 14.0], [1, 5.0, 5.0, 5.6, 5.4], [0, -3.0, -4.0, 25.0, 9.0]],
        dtype=torch.float64,
    )
    weights = torch.randn(4, 3, 3, 2, generator=generator, dtype=torch.float64)
    expected_input = images.clone().requires_grad_()
    expected = plain_roi_align(expected_input, rois, (3, 2), 0.5, ratio, aligned)
    (expected * weights).sum().backward()
    layer = mmcv_ops.RoIAlign((3, 2), spatial_scale=0.5, sampling_ratio=ratio, pool_mode="avg", aligned=aligned)
    actual_input = images.to(device).requires_grad_()
    actual = layer(actual_input, rois.to(device))
    (actual * weights.to(device)).sum().backward()
    torch.testing.assert_close(actual.cpu(), expected)
    torch.testing.assert_close(actual_input.grad.cpu(), expected_input.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_align_in_half_precision(dtype):
    images = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    rois = torch.tensor([[0, 0.0, 0.0, 6.0, 6.0]])
    output = mmcv_ops.RoIAlign(2, sampling_ratio=2)(images, rois.to(dtype))
    output.sum().backward()
    assert output.dtype == images.grad.dtype == dtype
    exact = plain_roi_align(images.detach().float(), rois, (2, 2), 1.0, 2, True)
    torch.testing.assert_close(output.float(), exact, atol=0.02, rtol=0.02)


def test_roi_align_without_rois():
    images = torch.randn(1, 2, 6, 6, requires_grad=True)
    output = mmcv_ops.RoIAlign(2)(images, torch.zeros(0, 5))
    output.sum().backward()
    assert output.shape == (0, 2, 2, 2)
    assert not images.grad.any()


@supplied
def test_roi_align_by_maximum_says_what_to_do():
    layer = mmcv_ops.RoIAlign(2, pool_mode="max")
    with pytest.raises(NotSupported, match=r"'roi_align' with pool_mode='max'.*install"):
        layer(torch.zeros(1, 1, 4, 4), torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]]))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_sigmoid_focal_loss_and_its_gradient(reduction, device):
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(7, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 4, 4, 1])  # 4: background
    gamma, alpha = 2.0, 0.25
    expected_input = logits.clone().requires_grad_()
    probability = expected_input.sigmoid()
    rows = []
    for row, label in enumerate(labels.tolist()):
        for column in range(4):
            p = probability[row, column]
            rows.append(
                -alpha * (1 - p) ** gamma * p.log() if column == label else -(1 - alpha) * p**gamma * (1 - p).log()
            )
    terms = torch.stack(rows).unflatten(0, (7, 4))
    expected = {"none": terms, "mean": terms.sum() / 7, "sum": terms.sum()}[reduction]
    actual_input = logits.to(device).requires_grad_()
    actual = mmcv_ops.sigmoid_focal_loss(actual_input, labels.to(device), gamma, alpha, None, reduction)
    torch.testing.assert_close(actual.cpu(), expected)
    expected.sum().backward()
    actual.sum().backward()
    torch.testing.assert_close(actual_input.grad.cpu(), expected_input.grad)


def test_sigmoid_focal_loss_stays_finite():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = mmcv_ops.sigmoid_focal_loss(logits, torch.tensor([1, 0]), 2.0, 0.25, None, "sum")
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@supplied
def test_sigmoid_focal_loss_with_class_weights_says_what_to_do():
    with pytest.raises(NotSupported, match=r"class weights.*install"):
        mmcv_ops.sigmoid_focal_loss(torch.zeros(2, 3), torch.tensor([0, 3]), 2.0, 0.25, torch.ones(3), "sum")


@supplied
def test_any_other_op_says_its_name_and_what_to_install():
    with pytest.raises(NotSupported, match=r"'top_pool_forward'.*pip install.*onedl-mmcv"):
        importlib.import_module(mmcv_extension.NAME).top_pool_forward(torch.zeros(1))


@supplied
def test_the_replacement_is_a_module_like_any_other():
    module = importlib.import_module(mmcv_extension.NAME)
    spec = importlib.util.find_spec(mmcv_extension.NAME)
    assert module.__spec__ is not None
    assert spec is not None
    assert spec.name == module.__spec__.name == mmcv_extension.NAME
    assert sys.modules[mmcv_extension.NAME] is module


@supplied
def test_report_names_every_op():
    report = ops_report()
    assert set(report["supplied"]) == set(SUPPLIED)
    assert "deform_conv_forward" in report["missing"]
    assert not set(report["supplied"]) & set(report["missing"])
    assert report["problem"] is None


def test_a_compiled_extension_wins(tmp_path):
    """In a fresh process, with a real module where the compiled extension would lie."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ext.py").write_text("compiled = True")
    code = "import mimbench_tasks.detection, mmcv._ext; assert mmcv._ext.compiled"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, check=True)


def test_installing_twice_changes_nothing():
    before = list(sys.meta_path)
    mmcv_extension.install()
    assert sys.meta_path == before
