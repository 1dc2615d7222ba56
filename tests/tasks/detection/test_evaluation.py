"""COCO's metrics of known predictions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from helpers.tiny_detection import CLASSES, write_scenes
from mimbench.report.scores.average_precision import ResampledPrecision
from mimbench.store.samples import Detections
from mimbench_tasks.detection.evaluation import average_precision, coco_results
from mimbench_tasks.detection.scenes import read_annotations

NAMES = {10: "disc", 20: "box"}


@pytest.fixture
def annotations(tmp_path):
    return read_annotations(write_scenes(tmp_path, 4))


def perfect(annotations, masks: bool = False) -> list[DetDataSample]:
    """Every annotated object, found with certainty."""
    samples = []
    for image_id in annotations.getImgIds():
        records = annotations.loadAnns(annotations.getAnnIds([image_id]))
        boxes = torch.tensor([record["bbox"] for record in records], dtype=torch.float)
        boxes[:, 2:] += boxes[:, :2]
        predicted = InstanceData(
            bboxes=boxes,
            scores=torch.ones(len(records)),
            labels=torch.tensor([record["category_id"] // 10 - 1 for record in records]),
        )
        if masks:
            predicted.masks = torch.from_numpy(np.stack([annotations.annToMask(record) for record in records])).bool()
        samples.append(DetDataSample(pred_instances=predicted, metainfo={"img_id": image_id}))
    return samples


def boxes_of(annotations, samples):
    return average_precision(annotations, coco_results(samples, [10, 20]), NAMES, "bbox")


def test_perfect_predictions_score_100(annotations):
    precision = boxes_of(annotations, perfect(annotations))
    assert precision.ap["all"].value == precision.ap50.value == precision.ap75.value == pytest.approx(100)
    assert precision.ap["all"].objects == len(annotations.getAnnIds())
    assert tuple(precision.by_class) == CLASSES
    for label, scores in enumerate(precision.by_class.values()):
        assert scores["AP"].value == scores["AP50"].value == pytest.approx(100)
        assert scores["AP"].objects == len(annotations.getAnnIds(catIds=[10 * (label + 1)]))


def test_perfect_masks_score_100_whatever_their_boxes(annotations):
    samples = perfect(annotations, masks=True)
    for sample in samples:
        sample.pred_instances.bboxes = torch.zeros_like(sample.pred_instances.bboxes)
    results = coco_results(samples, [10, 20])
    masks = average_precision(annotations, results, NAMES, "segm")
    boxes = average_precision(annotations, results, NAMES, "bbox")
    assert masks.ap["all"].value == pytest.approx(100)
    assert boxes.ap["all"].value == 0


def test_nothing_found_scores_0(annotations):
    samples = perfect(annotations)
    for sample in samples:
        sample.pred_instances = sample.pred_instances[:0]
    precision = boxes_of(annotations, samples)
    assert precision.ap["all"].value == precision.ap50.value == 0
    assert precision.ap["large"].value is None


def test_one_class_lost_halves_the_mean(annotations):
    samples = perfect(annotations)
    for sample in samples:
        sample.pred_instances = sample.pred_instances[sample.pred_instances.labels == 0]
    precision = boxes_of(annotations, samples)
    assert precision.by_class["disc"]["AP"].value == pytest.approx(100)
    assert precision.by_class["box"]["AP"].value == 0
    assert precision.ap["all"].value == pytest.approx(50)


def test_loose_boxes_count_at_50_but_not_at_75(annotations):
    samples = perfect(annotations)
    for sample in samples:
        boxes = sample.pred_instances.bboxes
        boxes[:, 2] = boxes[:, 0] + 0.62 * (boxes[:, 2] - boxes[:, 0])
    precision = boxes_of(annotations, samples)
    assert precision.ap50.value == pytest.approx(100)
    assert precision.ap75.value == 0
    assert precision.ap["all"].value == pytest.approx(100 * 3 / 10)  # IoU 0.62 passes 0.50, 0.55 and 0.60


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("order", [(10, 20, 5), (20, 5, 10), (5, 20, 10), (20, 10, 5)])
def test_each_class_gets_its_own_precision_whatever_the_order_of_ids(tmp_path, order, kind):
    """Discs (10) are found, boxes (20) are not, and there is no ring (5)."""
    split = write_scenes(tmp_path, 4)
    document = json.loads(split.annotations.read_text())
    document["categories"].append({"id": 5, "name": "ring"})
    document["categories"].sort(key=lambda category: order.index(category["id"]))
    split.annotations.write_text(json.dumps(document))
    annotations = read_annotations(split)
    names = {category["id"]: category["name"] for category in document["categories"]}
    samples = perfect(annotations, masks=True)
    for sample in samples:
        sample.pred_instances = sample.pred_instances[sample.pred_instances.labels == 0]
        sample.pred_instances.labels += order.index(10)
    precision = average_precision(annotations, coco_results(samples, list(order)), names, kind)
    expected = {"disc": (pytest.approx(100), 10), "box": (0, 20), "ring": (None, 5)}
    assert list(precision.by_class) == list(names.values())
    for name, scores in precision.by_class.items():
        value, category = expected[name]
        assert scores["AP"].value == scores["AP50"].value == value
        assert scores["AP"].objects == len(annotations.getAnnIds(catIds=[category]))


def test_sizes_follow_cocos_areas(tmp_path):
    split = write_scenes(tmp_path, 3)
    document = json.loads(split.annotations.read_text())
    for annotation, area in zip(document["annotations"], (1024, 1025, 9216, 9217, 100, 100), strict=True):
        annotation["area"] = area
    document["annotations"][-1]["iscrowd"] = 1
    split.annotations.write_text(json.dumps(document))
    annotations = read_annotations(split)
    precision = boxes_of(annotations, perfect(annotations))
    counts = {size: score.objects for size, score in precision.ap.items()}
    # An area on a bound counts on both sides, as in COCO's own code.
    assert counts == {"all": 5, "small": 2, "medium": 3, "large": 2}


def test_standard_output_stays_clean(annotations, capsys):
    boxes_of(annotations, perfect(annotations))
    assert capsys.readouterr().out == ""


def noisy(annotations, seed: int = 0) -> list[DetDataSample]:
    """Boxes of all objects, shifted, some missing, some twice, with scores at random."""
    generator, samples = torch.Generator().manual_seed(seed), perfect(annotations)
    for sample in samples:
        one = sample.pred_instances
        keep = torch.rand(len(one.bboxes), generator=generator) < 0.8
        boxes = torch.cat((one.bboxes[keep], one.bboxes + 8))
        boxes += torch.randn(boxes.shape, generator=generator)
        labels = torch.cat((one.labels[keep], one.labels))
        scores = torch.rand(len(boxes), generator=generator)
        sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
    return samples


def test_matched_detections_give_coco_s_precision_and_that_of_repeated_images(annotations, tmp_path):
    from copy import deepcopy

    from pycocotools.coco import COCO

    results = coco_results(noisy(annotations), [10, 20])
    precision = average_precision(annotations, results, NAMES, "bbox")
    assert 5 < precision.ap["all"].value < 95
    detections = Detections(**precision.matched, thresholds=tuple(range(10)))
    every, images = np.arange(10).tolist(), len(annotations.getImgIds())
    once = np.ones(images, dtype=int)
    assert ResampledPrecision(detections, every)(once) == pytest.approx(precision.ap["all"].value, abs=1e-9)
    assert ResampledPrecision(detections, [0])(once) == pytest.approx(precision.ap50.value, abs=1e-9)
    assert ResampledPrecision(detections, [5])(once) == pytest.approx(precision.ap75.value, abs=1e-9)

    times = np.array([3, 0, 1, 2])
    repeated, repeated_results = COCO(), []
    content = {"categories": annotations.dataset["categories"], "images": [], "annotations": []}
    for place, image_id in enumerate(sorted(annotations.getImgIds())):
        for copy in range(times[place]):
            new_id = 1000 * (place + 1) + copy
            content["images"].append({**annotations.imgs[image_id], "id": new_id})
            for record in annotations.loadAnns(annotations.getAnnIds([image_id])):
                content["annotations"].append(
                    {**deepcopy(record), "image_id": new_id, "id": len(content["annotations"]) + 1}
                )
            repeated_results += [{**one, "image_id": new_id} for one in results if one["image_id"] == image_id]
    repeated.dataset = content
    repeated.createIndex()
    expected = average_precision(repeated, repeated_results, NAMES, "bbox").ap["all"].value
    assert ResampledPrecision(detections, every)(times) == pytest.approx(expected, abs=1e-6)
