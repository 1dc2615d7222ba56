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
    GroupedSamples,
    ImageSplit,
    InputConfig,
    InputError,
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
    by_sample: dict[str, np.ndarray | GroupedSamples] = field(default_factory=dict)
    """Metrics on each image, as the task reports them."""
    sets: list[np.ndarray] = field(default_factory=list)
    """Accuracy on each image of each set, percent: top1_ood is the mean over sets of their mean."""

    def add(self, name: str, is_right: np.ndarray, *, is_set: bool = False) -> None:
        """Add a top-1 accuracy. is_right: bool [N]. is_set: whether top1_ood counts it."""
        self.metrics[name], self.by_sample[name] = _accuracy(is_right), is_right
        if is_set:
            self.sets.append(100.0 * is_right)

    def add_mean(self) -> None:
        """Add top1_ood, as the first metric."""
        values = np.concatenate(self.sets)
        groups = np.repeat(np.arange(len(self.sets)), [len(one) for one in self.sets])
        mean = float(np.mean([one.mean() for one in self.sets]))
        self.metrics = {"top1_ood": Measured(mean, len(values)), **self.metrics}
        self.by_sample["top1_ood"] = GroupedSamples(values, groups)


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
    scores.add("top1_clean", clean.argmax(axis=1) == labels)

    def run(test_set: TestSet) -> np.ndarray:
        """Whether the classifier is right, bool [N]."""
        answers = restricted(test_set, _scores_of(test_set, classifier, images, context, config.set_workers, channels))
        return answers == test_set.split.labels.numpy()

    for name in FOLDER_SETS:
        test_set = open_set(config, name, train.classes)
        if test_set is not None:
            context.say(f"ood: ImageNet-{name.capitalize()}, {len(test_set.split):,} images")
            scores.add(f"top1_{name}", run(test_set), is_set=True)
    if config.imagenet_c is not None:
        by_corruption: dict[str, list[np.ndarray]] = {}
        for name, severity, test_set in corrupted_sets(config.imagenet_c, train.classes):
            context.say(f"ood: ImageNet-C, {name}, severity {severity}")
            by_corruption.setdefault(name, []).append(run(test_set))
        add_corruption_errors(scores, by_corruption)
    if config.imagenet_real is not None:
        several = real_labels(config.imagenet_real, test, train.classes)
        scores.add("accuracy_real", real_hits(clean.argmax(axis=1), several), is_set=not scores.sets)
    if not has_sets(config):
        _add_corrupted(scores, config, classifier, test, images, context, channels)
    scores.add_mean()
    absent = [metric.name for metric in METRICS if metric.name not in scores.metrics]
    scores.details["absent"] = dict.fromkeys(absent, "no option names this set")
    return scores


def add_corruption_errors(scores: Scores, by_corruption: Mapping[str, Sequence[np.ndarray]]) -> None:
    """mCE and the mean error over the 15 corruptions, and a curve by severity for each corruption of ImageNet-C.

    Args:
        by_corruption: whether the classifier is right at each severity, bool [N], of the same images each.

    Raises:
        InputError: folders have different numbers of images.
    """
    sizes = {len(hits): (name, number + 1) for name, each in by_corruption.items() for number, hits in enumerate(each)}
    if len(sizes) > 1:
        (few, (name, severity)), (many, _) = min(sizes.items()), max(sizes.items())
        raise InputError(
            f"task.imagenet_c: {name}, severity {severity} has {few:,} images, and another folder {many:,}; unpack all "
            "archives of the set"
        )
    top1 = {name: [100.0 * hits.mean() for hits in each] for name, each in by_corruption.items()}
    of_mce = np.array([top1[name] for name in ALEXNET_ERRORS])
    error_by_image = {name: 100.0 - 100.0 * np.mean(by_corruption[name], axis=0) for name in ALEXNET_ERRORS}
    error = np.mean(list(error_by_image.values()), axis=0)
    relative = [100.0 * error_by_image[name] / alexnet for name, alexnet in ALEXNET_ERRORS.items()]
    scores.metrics["mce"] = Measured(mean_relative_error(top1), len(error))
    scores.metrics["mean_error_c"] = Measured(float(error.mean()), len(error))
    scores.by_sample |= {"mce": np.mean(relative, axis=0), "mean_error_c": error}
    scores.sets.append(100.0 - error)
    scores.curves |= {"severity": [1, 2, 3, 4, 5], "top1": of_mce.mean(0).tolist()}
    scores.curves |= {f"top1, {name}": list(values) for name, values in top1.items()}


def real_accuracy(answers: np.ndarray, labels: Sequence[Sequence[int]]) -> Measured:
    """Percent of the images with labels whose answer is one of them. answers: int [N]. labels: of each image."""
    return _accuracy(real_hits(answers, labels))


def real_hits(answers: np.ndarray, labels: Sequence[Sequence[int]]) -> np.ndarray:
    """Whether the answer is one of the labels, bool, for each image that has labels."""
    return np.array([answer in several for answer, several in zip(answers, labels, strict=True) if several], bool)


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
    labels = test.labels.numpy()[places]
    value, curves = score_corrupted(answers, labels, config.severities)
    by_image = 100.0 * (answers == labels[:, None]).mean(axis=1)
    scores.metrics["top1_corrupted"], scores.by_sample["top1_corrupted"] = Measured(value, len(places)), by_image
    scores.sets.append(by_image)
    scores.curves |= curves
    scores.artifacts["corruptions"] = path
    scores.details |= {"constants": corrupted.constants, "departures": departures(corrupted)}
