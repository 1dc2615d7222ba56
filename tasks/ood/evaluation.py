"""Scores of one classifier on the test sets that the options name, or on corrupted test images if they name none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mimbench.api import (
    Dataset,
    DeviceTransform,
    ImageSplit,
    InputConfig,
    Measured,
    Metric,
    TaskContext,
    evaluation_loader,
    get_rank,
    get_world_size,
    labelled_split,
    majority_accuracy,
    require_grey_or_rgb,
)
from mimbench_tasks.finetune.scoring import compute_logits
from mimbench_tasks.ood.config import SetOptions
from mimbench_tasks.ood.corruption_errors import ALEXNET_ERRORS, mean_relative_error
from mimbench_tasks.ood.sets import (
    FOLDER_SETS,
    TestSet,
    corrupted_sets,
    corruption_folders,
    has_sets,
    open_set,
    real_labels,
    require_all_classes,
    restricted,
)
from mimbench_tasks.robustness.answers import answer_corrupted, score_corrupted
from mimbench_tasks.robustness.corrupted_images import CorruptedImages, choose_images, draw_corruptions
from mimbench_tasks.robustness.corruptions import FROST
from mimbench_tasks.robustness.task import departures

BATCH = 256
"""Images per batch."""
METRICS = (
    Metric("top1_ood", "percent", 0.0, 100.0),
    Metric("top1_clean", "percent", 0.0, 100.0),
    Metric("top1_a", "percent", 0.0, 100.0),
    Metric("top1_r", "percent", 0.0, 100.0),
    Metric("top1_sketch", "percent", 0.0, 100.0),
    Metric("top1_v2", "percent", 0.0, 100.0),
    Metric("accuracy_real", "percent", 0.0, 100.0),
    Metric("mce", "percent", 0.0, 200.0, higher_is_better=False),
    Metric("mean_error_c", "percent", 0.0, 100.0, higher_is_better=False),
    Metric("top1_corrupted", "percent", 0.0, 100.0),
)
"""top1_ood is the mean over the sets that were measured: A, R, Sketch, V2, C by its mean accuracy, corrupted images.
ReaL, whose images are the clean ones, counts only if it is alone."""


@dataclass
class Scores:
    """What was measured so far."""

    metrics: dict[str, Measured] = field(default_factory=dict)
    curves: dict[str, Sequence[float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    means: list[float] = field(default_factory=list)
    """Accuracies that top1_ood is the mean of."""


def check_sets(config: SetOptions, dataset: Dataset) -> None:
    """Check that the sets fit the training images. Raises InputError if one does not."""
    train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
    if not has_sets(config):
        require_grey_or_rgb(dataset.channels, f"dataset {dataset.name!r}", "corrupting")
        return
    for name in FOLDER_SETS:
        open_set(config, name, train.classes)
    if config.imagenet_real is not None:
        real_labels(config.imagenet_real, test, train.classes)
    if config.imagenet_c is not None:
        require_all_classes(train.classes, "task.imagenet_c")
        corruption_folders(config.imagenet_c)


def chance(config: SetOptions, dataset: Dataset) -> float:
    """top1_ood of always answering the most frequent class of the training images, of those that a set allows."""
    train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
    counts = np.bincount(train.labels.numpy(), minlength=len(train.classes))
    if not has_sets(config):
        return majority_accuracy(dataset, choose_images(len(test), config.test_limit))
    opened = [one for name in FOLDER_SETS if (one := open_set(config, name, train.classes)) is not None]
    values = [_accuracy(one.split.labels.numpy() == restricted(one, counts[None])).value for one in opened]
    if config.imagenet_c is not None:
        values.append(majority_accuracy(dataset))
    if config.imagenet_real is not None and not values:
        several = real_labels(config.imagenet_real, test, train.classes)
        values.append(real_accuracy(np.full(len(test), counts.argmax()), several).value)
    return float(np.mean(values))


def evaluate(
    config: SetOptions,
    classifier: nn.Module,
    clean: np.ndarray,
    dataset: Dataset,
    images: InputConfig,
    context: TaskContext,
    *,
    channels: int,
) -> Scores:
    """Measure all sets. Under torchrun, ranks share the images of each.

    Args:
        classifier: normalised images [B, C, S, S] -> scores [B, classes], higher is likelier.
        clean: its scores of the test images, [N, classes].
        images: how images are shown to it.
        channels: that it takes.
    """
    train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
    labels, scores = test.labels.numpy(), Scores()
    scores.metrics["top1_clean"] = _accuracy(clean.argmax(axis=1) == labels)

    def run(test_set: TestSet) -> np.ndarray:
        """Whether the classifier is right, bool [N]."""
        answers = restricted(test_set, _scores_of(test_set, classifier, images, context, config.set_workers, channels))
        return answers == test_set.split.labels.numpy()

    for name in FOLDER_SETS:
        test_set = open_set(config, name, train.classes)
        if test_set is not None:
            context.say(f"ood: ImageNet-{name.capitalize()}, {len(test_set.split):,} images")
            scores.metrics[f"top1_{name}"] = measured = _accuracy(run(test_set))
            scores.means.append(measured.value)
    if config.imagenet_c is not None:
        by_corruption: dict[str, list[float]] = {}
        count = 0
        for name, severity, test_set in corrupted_sets(config.imagenet_c, train.classes):
            context.say(f"ood: ImageNet-C, {name}, severity {severity}")
            by_corruption.setdefault(name, []).append(_accuracy(run(test_set)).value)
            count = len(test_set.split)
        add_corruption_errors(scores, by_corruption, count)
    if config.imagenet_real is not None:
        several = real_labels(config.imagenet_real, test, train.classes)
        scores.metrics["accuracy_real"] = measured = real_accuracy(clean.argmax(axis=1), several)
        if not scores.means:
            scores.means.append(measured.value)
    if not has_sets(config):
        _add_corrupted(scores, config, classifier, test, images, context, channels)
    count = max(measured.n for name, measured in scores.metrics.items() if name != "top1_clean")
    scores.metrics = {"top1_ood": Measured(float(np.mean(scores.means)), count), **scores.metrics}
    absent = [metric.name for metric in METRICS if metric.name not in scores.metrics]
    scores.details["absent"] = dict.fromkeys(absent, "no option names this set")
    return scores


def add_corruption_errors(scores: Scores, by_corruption: Mapping[str, Sequence[float]], count: int) -> None:
    """mCE and the mean error over the 15 corruptions, and a curve by severity for each corruption of ImageNet-C.

    Args:
        by_corruption: top-1 accuracy at each severity, percent.
        count: images of each severity of each corruption.
    """
    of_mce = np.array([by_corruption[name] for name in ALEXNET_ERRORS])
    error = 100 - float(of_mce.mean())
    scores.metrics["mce"] = Measured(mean_relative_error(by_corruption), count)
    scores.metrics["mean_error_c"] = Measured(error, count)
    scores.means.append(100 - error)
    scores.curves |= {"severity": [1, 2, 3, 4, 5], "top1": of_mce.mean(0).tolist()}
    scores.curves |= {f"top1, {name}": list(values) for name, values in by_corruption.items()}


def real_accuracy(answers: np.ndarray, labels: Sequence[Sequence[int]]) -> Measured:
    """Percent of the images with labels whose answer is one of them. answers: int [N]. labels: of each image."""
    return _accuracy(np.array([answer in several for answer, several in zip(answers, labels, strict=True) if several]))


def _accuracy(is_right: np.ndarray) -> Measured:
    return Measured(100 * float(np.mean(is_right)), len(is_right))


def _scores_of(
    test_set: TestSet, classifier: nn.Module, images: InputConfig, context: TaskContext, workers: int, channels: int
) -> np.ndarray:
    shown = test_set.input(images)
    loader = evaluation_loader(
        test_set.split,
        shown,
        batch_size=BATCH,
        device=context.device,
        workers=workers,
        rank=get_rank(),
        world_size=get_world_size(),
    )
    transform = DeviceTransform(shown, channels, train=False, batched=test_set.split.is_in_memory)
    return compute_logits(classifier, loader, transform, context.device)[0].numpy()


def _add_corrupted(
    scores: Scores,
    config: SetOptions,
    classifier: nn.Module,
    test: ImageSplit,
    images: InputConfig,
    context: TaskContext,
    channels: int,
) -> None:
    places = choose_images(len(test), config.test_limit)
    context.say(f"ood: {len(places):,} test images, corrupted in {len(config.severities)} severities")
    corrupted = CorruptedImages(test, places.tolist(), images, config.severities)
    path = context.workdir / "corruptions.png"
    path.write_bytes(draw_corruptions(corrupted, footnote=f"frost: {FROST}"))
    classifier = classifier.to(context.device).eval()

    def answer(views: Tensor) -> np.ndarray:
        return classifier(views).argmax(dim=1).cpu().numpy()

    with torch.inference_mode():
        answers = answer_corrupted(
            answer, corrupted, images, channels=channels, device=context.device, workers=config.set_workers
        )
    value, curves = score_corrupted(answers, test.labels.numpy()[places], config.severities)
    scores.metrics["top1_corrupted"] = Measured(value, len(places))
    scores.means.append(value)
    scores.curves |= curves
    scores.artifacts["corruptions"] = path
    scores.details |= {"constants": corrupted.constants, "departures": departures(corrupted)}
