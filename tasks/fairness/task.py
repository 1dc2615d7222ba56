"""Whether a classifier on frozen features is as accurate for one group of images as for another."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from mimbench.api import (
    Audit,
    AuditInput,
    Dataset,
    Encoder,
    FrozenFeaturesConfig,
    ImageSplit,
    InputError,
    Metric,
    RegressionConfig,
    RegressionTask,
    TaskContext,
    TaskResult,
    class_probabilities,
    classification_scores,
    labelled_split,
    pick_attribute,
)
from mimbench_tasks.fairness import measures
from mimbench_tasks.fairness.planted import ReversedGroups


class FairnessConfig(RegressionConfig, FrozenFeaturesConfig):
    """The head is a logistic regression, C chosen on held-out training images."""

    attribute: str | None = None
    """Name of the attribute that says which group an image is of. Default: the only one that the dataset has."""
    reference: int | None = None
    """Number of the group that the others are compared with. Default: the largest one of the training images, of equal
    ones the first."""


class Fairness(RegressionTask, Audit):
    """Accuracy by group of a head on all training images, and differences between groups.

    `difference` is the accuracy of the reference group minus the mean of the other groups, with its sign, so that it
    is 0 on average where groups do not differ. `gap` is the highest accuracy of a group minus the lowest, which is
    above 0 by chance too. `worst_group` is the lowest, and `group_mean` the mean. `equalised_odds` is the difference in
    equalised odds, see `measures.equalised_odds`. `details["intervals"]` has 95 % bootstrap intervals over the images
    of each group; those of `gap` and `equalised_odds`, which chance raises, lie too high.
    `details["equalised_odds_if_equal"]` is what chance alone makes of `equalised_odds`, mean and standard deviation.

    The head sees the groups as often as the dataset's train split has them. To measure what the pretraining data does,
    give all encoders a dataset with equal groups.
    """

    name: ClassVar[str] = "fairness"
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"images", "labels", "attributes"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("difference", "percent", -100.0, 100.0, higher_is_better=False),
        Metric("gap", "percent", 0.0, 100.0, higher_is_better=False),
        Metric("worst_group", "percent", 0.0, 100.0),
        Metric("group_mean", "percent", 0.0, 100.0),
        Metric("equalised_odds", "percent", 0.0, 100.0, higher_is_better=False),
    )
    Config = FairnessConfig
    config: FairnessConfig
    default_dataset: ClassVar[str | None] = "unequal-digits"
    doses: ClassVar[tuple[float, ...]] = (0.0, 0.25, 0.5, 1.0)

    def chance(self, dataset: Dataset) -> float:
        """A constant answer is as right in one group as in another, if classes are equally frequent in them."""
        return 0.0

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        groups = np.unique(self._groups(test)).tolist()
        if len(groups) < 2:
            raise InputError(f"{self.name}: all test images are of group {groups[0]}; it compares two or more groups")
        if (reference := self._reference(train, test)) not in groups:
            raise InputError(
                f"{self.name}: no test image is of the reference group {reference}; choose task.reference from {groups}"
            )

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        context.say(f"{self.name}: probing {len(train):,} training and {len(test):,} test images")
        train_x, test_x = (features.numpy() for features in self.features(train, test, context))
        fitted = self.fit(train_x, train.labels.numpy(), context)
        scores = class_probabilities(fitted.classifier, test_x, len(train.classes))
        answers, labels, groups = scores.argmax(1), test.labels.numpy(), self._groups(test)
        reference = self._reference(train, test)
        metrics, intervals = measures.measure(answers, labels, groups, reference, context.seed)
        of_training, hits = self._groups(train), answers == labels
        details = {
            **fitted.details(),
            "reference": reference,
            "intervals": intervals,
            "equalised_odds_if_equal": measures.equalised_odds_if_equal(answers, labels, groups, context.seed),
            "groups": [
                {
                    "group": group,
                    "top1": accuracy,
                    "test": int((groups == group).sum()),
                    "train": int((of_training == group).sum()),
                }
                for group, accuracy in measures.group_accuracies(hits, groups).items()
            ],
        }
        return TaskResult(
            metrics,
            details=details,
            scores=classification_scores(test, scores),
            by_sample={"difference": measures.difference_by_sample(hits, groups, reference)},
        )

    def _groups(self, split: ImageSplit) -> np.ndarray:
        """The group of each image, int64 [N]."""
        return split.attributes[pick_attribute(split, self.config.attribute)].numpy()

    def _reference(self, train: ImageSplit, test: ImageSplit) -> int:
        if self.config.reference is not None:
            return self.config.reference
        groups, counts = np.unique(self._groups(train), return_counts=True)
        return int(groups[counts.argmax()])

    def plant(self, dose: float, seed: int, folder: Path) -> AuditInput:
        """A test split in which `dose` of the images of one group look like the other class."""
        return AuditInput(ReversedGroups(dose, 30.0, seed, folder))

    def oracle(self, seed: int, folder: Path) -> AuditInput:
        """All of them do, and the classes are plain to see: the head is right in one group and wrong in the other."""
        return AuditInput(ReversedGroups(1.0, 0.0, seed, folder))
