"""COCO's average precision of predictions, by size and by class, from pycocotools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal

import numpy as np
from mmdet.structures import DetDataSample
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Kind = Literal["bbox", "segm"]
SIZES = ("all", "small", "medium", "large")
"""COCO's areas, in order: any; below 32^2 px; up to 96^2 px; above."""


@dataclass(frozen=True)
class Score:
    """An average precision in percent over `objects` annotated objects; None where there is no object."""

    value: float | None
    objects: int


@dataclass(frozen=True)
class Precision:
    """What one kind of overlap (boxes or masks) scores."""

    ap: dict[str, Score]
    """By size, over IoU 0.50 to 0.95."""
    ap50: Score
    ap75: Score
    by_class: dict[str, dict[str, Score]]
    """Class name -> "AP" and "AP50"."""
    matched: dict[str, np.ndarray]
    """Fields of MatchedDetections, but for its metrics."""
    by_recall: list[float]
    """Precision in percent at IoU 0.50, mean over classes, at recalls 0, 0.01, ... 1."""


def coco_results(samples: Iterable[DetDataSample], category_ids: list[int]) -> list[dict[str, Any]]:
    """mmdet's predictions as COCO's result records, masks as RLE where there are any."""
    records = []
    for sample in samples:
        predictions = sample.pred_instances.cpu()
        boxes = predictions.bboxes.clone()
        boxes[:, 2:] -= boxes[:, :2]
        masks = _encode(predictions.masks) if "masks" in predictions else [None] * len(boxes)
        for box, score, label, mask in zip(
            boxes.tolist(), predictions.scores.tolist(), predictions.labels.tolist(), masks, strict=True
        ):
            record = {"image_id": sample.img_id, "category_id": category_ids[label], "bbox": box, "score": score}
            records.append(record if mask is None else {**record, "segmentation": mask})
    return records


def average_precision(
    annotations: COCO, results: list[dict[str, Any]], classes: dict[int, str], kind: Kind
) -> Precision:
    """COCO's protocol (at most 100 detections an image) over every image of `annotations`.

    classes: name of each category that counts, by COCO category id.
    """
    with redirect_stdout(StringIO()):
        predictions = annotations.loadRes(_of_kind(results, kind)) if results else _nothing(annotations)
        evaluation = COCOeval(annotations, predictions, kind)
        evaluation.params.catIds = list(classes)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]  # [IoU, recall, class, size]; -1 where there is no object
    # pycocotools sorts the categories that it was given by id.
    scored_ids = [int(value) if isinstance(value, np.integer) else str(value) for value in evaluation.params.catIds]
    counts = _count(annotations, scored_ids, evaluation.params.areaRng)
    thresholds = np.round(evaluation.params.iouThrs, 2).tolist()
    at50, at75 = thresholds.index(0.5), thresholds.index(0.75)
    total = int(counts[:, 0].sum())
    return Precision(
        ap={size: Score(_mean(precision[..., i]), int(counts[:, i].sum())) for i, size in enumerate(SIZES)},
        ap50=Score(_mean(precision[at50, ..., 0]), total),
        ap75=Score(_mean(precision[at75, ..., 0]), total),
        by_class={
            name: {
                "AP": Score(_mean(precision[:, :, k, 0]), int(counts[k, 0])),
                "AP50": Score(_mean(precision[at50, :, k, 0]), int(counts[k, 0])),
            }
            for name, k in ((name, scored_ids.index(category_id)) for category_id, name in classes.items())
        },
        matched=_matched(evaluation),
        by_recall=[round(_mean(at_recall) or 0.0, 3) for at_recall in precision[at50, ..., 0]],
    )


def _matched(evaluation: COCOeval) -> dict[str, np.ndarray]:
    """Detections of any size as they were matched, in the order of the images."""
    images, areas, classes = (len(evaluation.params.imgIds), len(SIZES), len(evaluation.params.catIds))
    thresholds = len(evaluation.params.iouThrs)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("images", "classes", "scores", "hits", "ignored")}
    objects = np.zeros((images, classes), dtype=int)
    for image in range(images):
        for number in range(classes):
            matches = evaluation.evalImgs[number * areas * images + image]  # the first area is any size
            if matches is None:
                continue
            count = len(matches["dtScores"])
            objects[image, number] = int((np.asarray(matches["gtIgnore"]) == 0).sum())
            parts["images"].append(np.full(count, image))
            parts["classes"].append(np.full(count, number))
            parts["scores"].append(np.asarray(matches["dtScores"], dtype=np.float64).reshape(count))
            parts["hits"].append(np.asarray(matches["dtMatches"]).reshape(thresholds, count).T > 0)
            parts["ignored"].append(np.asarray(matches["dtIgnore"]).reshape(thresholds, count).T.astype(bool))
    empty = {"hits": np.zeros((0, thresholds), bool), "ignored": np.zeros((0, thresholds), bool)}
    joined = {
        name: np.concatenate(arrays) if arrays else empty.get(name, np.zeros(0)) for name, arrays in parts.items()
    }
    return {**joined, "objects": objects}


def _mean(precision: np.ndarray) -> float | None:
    measured = precision[precision > -1]
    return 100 * float(measured.mean()) if measured.size else None


def _count(annotations: COCO, category_ids: Sequence[int | str], areas: list[list[float]]) -> np.ndarray:
    """Objects that count, [class, size]."""
    counts = np.zeros((len(category_ids), len(areas)), dtype=int)
    for annotation in annotations.dataset["annotations"]:
        if annotation["category_id"] in category_ids and not annotation.get("iscrowd", 0):
            row = counts[category_ids.index(annotation["category_id"])]
            row += [low <= annotation["area"] <= high for low, high in areas]
    return counts


def _of_kind(results: list[dict[str, Any]], kind: Kind) -> list[dict[str, Any]]:
    """Records of boxes alone, or of masks alone: loadRes takes sizes from whichever it finds first."""
    other = "segmentation" if kind == "bbox" else "bbox"
    return [{key: value for key, value in record.items() if key != other} for record in results]


def _nothing(annotations: COCO) -> COCO:
    """A result without a detection, which loadRes refuses."""
    empty = COCO()
    empty.dataset = {"images": annotations.dataset["images"], "categories": annotations.dataset["categories"]}
    empty.dataset["annotations"] = []
    empty.createIndex()
    return empty


def _encode(masks: Any) -> list[dict[str, Any]]:
    """bool [N, H, W] -> compressed RLEs."""
    columns = np.asfortranarray(masks.numpy().astype(np.uint8).transpose(1, 2, 0))
    return list(rle.encode(columns))
