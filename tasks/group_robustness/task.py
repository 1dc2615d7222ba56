"""How much a classifier on frozen features relies on an attribute of the images, such as their background."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from mimbench.api import (
    Audit,
    AuditInput,
    Dataset,
    Encoder,
    FrozenFeaturesConfig,
    ImageSplit,
    InputError,
    Measured,
    Metric,
    RegressionConfig,
    RegressionTask,
    TaskContext,
    TaskResult,
    class_probabilities,
    classification_scores,
    labelled_split,
    open_dataset,
    pick_attribute,
)
from mimbench_tasks.group_robustness.balanced_head import balanced_answers
from mimbench_tasks.group_robustness.groups import Groups, describe_groups, measure_groups

HELD = "validation"
"""The part of the dataset that the balanced head is fitted on."""


class GroupRobustnessConfig(RegressionConfig, FrozenFeaturesConfig):
    """The head on the training images is a logistic regression, C chosen on held-out ones among them."""

    attribute: str | None = None
    """Name of the attribute. Default: the only one that the dataset has."""
    fits: int = Field(20, ge=1)
    """Fits of the balanced head, each on other images; their mean counts (deep_feature_reweighting: 20)."""


class GroupRobustness(RegressionTask, Audit):
    """Accuracy by group of class and attribute, of a head on the training images and of one on balanced images.

    `reliance` is the accuracy on aligned groups minus that on conflicting ones, each a mean over classes.
    A group is aligned if its attribute is the one that is most over-represented in its class among the training images.
    `worst_group` is the lowest accuracy of a group, `gap` the highest minus the lowest, `group_mean` their mean, and
    `average` their mean weighted by the groups' shares of the training images, as Sagawa et al. report it
    (arXiv:1911.08731, kohpangwei/group_DRO@cbbc1c5).

    The head on training images may rely on the attribute because the data invites it to. The balanced head
    (`*_balanced`) shows whether the encoder offers the class as well: L1 logistic regression on equally many images of
    each group of the part "validation", C chosen by the worst group of its second half, mean of 20 fits on all of it
    (deep feature reweighting, arXiv:2204.02937; here features are standardised by all of "validation", and each group
    is halved). `attribute_top1` is the accuracy of a regression that reads the attribute from the features of
    "validation".
    """

    name: ClassVar[str] = "group-robustness"
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"images", "labels", "attributes"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("reliance", "percent", -100.0, 100.0, higher_is_better=False),
        Metric("worst_group", "percent", 0.0, 100.0),
        Metric("average", "percent", 0.0, 100.0),
        Metric("group_mean", "percent", 0.0, 100.0),
        Metric("gap", "percent", 0.0, 100.0, higher_is_better=False),
        Metric("reliance_balanced", "percent", -100.0, 100.0, higher_is_better=False),
        Metric("worst_group_balanced", "percent", 0.0, 100.0),
        Metric("group_mean_balanced", "percent", 0.0, 100.0),
        Metric("gap_balanced", "percent", 0.0, 100.0, higher_is_better=False),
        Metric("attribute_top1", "percent", 0.0, 100.0),
    )
    Config = GroupRobustnessConfig
    config: GroupRobustnessConfig
    default_dataset: ClassVar[str | None] = "striped-digits"
    doses: ClassVar[tuple[float, ...]] = (0.0, 0.5, 0.9, 1.0)

    def chance(self, dataset: Dataset) -> float:
        """A constant answer is as right on aligned images as on conflicting ones."""
        return 0.0

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        train_split = labelled_split(dataset, "train")
        train, test = self._groups(train_split), self._groups(labelled_split(dataset, "test"))
        absent = sorted(set(train.members()) - set(test.members()))
        if absent:
            (label, value), name = absent[0], pick_attribute(train_split, self.config.attribute)
            raise InputError(
                f"{self.name}: the test split has no image of class {train_split.classes[label]!r} with "
                f"{name} {value}, as the train split has; leave such training images out"
            )
        if HELD in dataset.parts:
            held = self._groups(labelled_split(dataset, HELD)).members()
            if any(len(held.get(group, ())) < 2 for group in train.members()):
                raise InputError(
                    f"{self.name}: the part {HELD!r} has fewer than two images of a group of class and attribute that "
                    "the train split has; its balanced head needs them"
                )

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        context.say(f"{self.name}: probing {len(train):,} training and {len(test):,} test images")
        train_x, test_x = (features.numpy() for features in self.features(train, test, context))
        fitted = self.fit(train_x, train.labels.numpy(), context)
        scores = class_probabilities(fitted.classifier, test_x, len(train.classes))
        seen, scored = self._groups(train), self._groups(test)
        hits = scores.argmax(1) == scored.labels
        metrics = measure_groups(hits, scored, seen)
        details: dict[str, Any] = {**fitted.details(), "groups": describe_groups(hits, scored, seen)}
        if HELD in dataset.parts:
            held = labelled_split(dataset, HELD)
            held_x = context.features(held, HELD, layer=self.config.layer, pooling=self.config.pooling).numpy()
            of_held = self._groups(held)
            answers, strength = balanced_answers(held_x, of_held, test_x, self.config.fits, context.seed)
            balanced = answers == scored.labels
            metrics |= {
                f"{name}_balanced": value
                for name, value in measure_groups(balanced, scored, seen).items()
                if name != "average"
            }
            decoded = self.fit(held_x, of_held.attribute, context)
            is_read = decoded.classifier.predict(test_x) == scored.attribute
            metrics["attribute_top1"] = Measured(100 * float(is_read.mean()), len(test))
            details |= {
                "balanced_inverse_regularisation": strength,
                "groups_balanced": describe_groups(balanced, scored, seen),
            }
        else:
            reason = f"the dataset has no part {HELD!r} of images that are balanced over the attribute"
            details["absent"] = {metric.name: reason for metric in self.metrics if metric.name not in metrics}
        return TaskResult(
            metrics,
            details=details,
            scores=classification_scores(test, scores),
            by_sample={"group_mean": scored.by_group(hits)},
        )

    def _groups(self, split: ImageSplit) -> Groups:
        return Groups(split.labels.numpy(), split.attributes[pick_attribute(split, self.config.attribute)].numpy())

    def plant(self, dose: float, seed: int, folder: Path) -> AuditInput:
        """Stripes that run with the class in (1 + dose) / 2 of the training images."""
        options = {"correlation": (1 + dose) / 2, "contrast": 0.3, "train_limit": 600, "validation_limit": 200}
        return AuditInput(open_dataset("striped-digits", options | {"seed": seed}, folder))

    def oracle(self, seed: int, folder: Path) -> AuditInput:
        """Images of stripes alone, which run with the class in all training images."""
        options = {"correlation": 1.0, "contrast": 0.6, "ink": 0.0, "train_limit": 600, "validation_limit": 200}
        return AuditInput(open_dataset("striped-digits", options | {"seed": seed}, folder))
