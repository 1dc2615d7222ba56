"""Transfer: linear probes on a suite of sets, with a mean per group of sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mimbench.api import (
    Dataset,
    Encoder,
    GroupedSamples,
    InputError,
    Measured,
    Metric,
    Regression,
    RegressionConfig,
    RegressionTask,
    SuiteMember,
    TaskContext,
    TaskResult,
    class_probabilities,
    image_split,
    labelled_split,
    majority_accuracy,
    require_classes,
    top_k_hits,
)

GROUPS = ("natural", "specialized", "structured", "fine-grained")
"""The first three are VTAB's."""


class Transfer(RegressionTask):
    """Top-1 accuracy of a linear probe on each set of a suite, and their means per group.

    The protocol is one for all sets: logistic regression on standardised features. Its regularisation is chosen on the
    set's own validation part if it has one (VTAB-1k: train800 and val200, arXiv:1910.04867), else on held-out training
    images. Then it is fitted to all training images. The accuracy of each set is in the curve "top1, NAME".
    `top1_over_sets` is the mean over sets, as VTAB's score is.
    """

    name: ClassVar[str] = "transfer"
    version: ClassVar[str] = "1"
    default_dataset: ClassVar[str | None] = "suite"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("top1_over_sets", "percent", 0.0, 100.0),
        *(Metric(f"top1_{group.replace('-', '_')}", "percent", 0.0, 100.0) for group in GROUPS),
    )
    Config = RegressionConfig
    config: RegressionConfig

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        for name, member in members_of(dataset).items():
            if member.group not in GROUPS:
                raise InputError(f"set {name!r} of the suite: group {member.group!r} is none of {', '.join(GROUPS)}")
            if member.dataset.channels not in (1, encoder.in_channels):
                raise InputError(
                    f"set {name!r} of the suite has {member.dataset.channels} channels, the encoder takes "
                    f"{encoder.in_channels}"
                )
            require_classes(member.dataset, self.name)

    def chance(self, dataset: Dataset) -> float:
        return float(np.mean([majority_accuracy(member.dataset) for member in members_of(dataset).values()]))

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        members = members_of(dataset)
        hits: dict[str, np.ndarray] = {}
        chosen: dict[str, dict[str, Any]] = {}
        for name, member in members.items():
            train, test = labelled_split(member.dataset, "train"), labelled_split(member.dataset, "test")
            context.say(f"transfer: {name}, {len(train):,} training and {len(test):,} test images")
            fitted = self._fit(name, member.dataset, context)
            features = self._features(name, member.dataset, "test", context)
            probabilities = class_probabilities(fitted.classifier, features, len(train.classes))
            hits[name] = top_k_hits(test.labels.numpy(), probabilities, 1)
            chosen[name] = {"group": member.group, "content": member.dataset.fingerprint(), **fitted.details()}
        by_sample = {"top1_over_sets": _over_sets(list(hits.values()))}
        for group in GROUPS:
            of_group = [hits[name] for name, member in members.items() if member.group == group]
            if of_group:
                by_sample[f"top1_{group.replace('-', '_')}"] = _over_sets(of_group)
        metrics = {name: _mean(samples) for name, samples in by_sample.items()}
        top1 = {name: 100 * float(one.mean()) for name, one in hits.items()}
        absent = {metric.name: "the suite has no set of this group" for metric in self.metrics} | metrics
        return TaskResult(
            metrics,
            {f"top1, {name}": [value] for name, value in top1.items()},
            details={
                "sets": chosen,
                "top1": top1,
                "absent": {name: why for name, why in absent.items() if isinstance(why, str)},
            },
            by_sample=by_sample,
        )

    def _fit(self, name: str, dataset: Dataset, context: TaskContext) -> Regression:
        config, train = self.config, labelled_split(dataset, "train")
        x, y = self._features(name, dataset, "train", context), train.labels.numpy()
        if not {"fit", "validation"} <= set(dataset.parts):
            return self.fit(x, y, context)
        fit, held = image_split(dataset, "fit"), image_split(dataset, "validation")
        fit_x, fit_y = self._features(name, dataset, "fit", context), fit.labels.numpy()
        held_x, held_y = self._features(name, dataset, "validation", context), held.labels.numpy()
        accuracy: dict[float, float] = {}
        for strength in config.inverse_regularisation:
            one = config.model_copy(update={"inverse_regularisation": (strength,)})
            accuracy[strength] = self.fit(fit_x, fit_y, context, one).classifier.score(held_x, held_y)
        best = max(accuracy, key=lambda strength: accuracy[strength])
        last = config.model_copy(update={"inverse_regularisation": (best,)})
        final = self.fit(x, y, context, last)
        return Regression(final.classifier, best, accuracy, final.converged, final.solver)

    def _features(self, name: str, dataset: Dataset, part: str, context: TaskContext) -> np.ndarray:
        """Features of a part of a set, float32 [N, D]. They are stored under the content of the set."""
        which = f"{part} of {dataset.fingerprint()}"
        layer, pooling = self.config.layer, self.config.pooling
        return context.features(image_split(dataset, part), which, layer=layer, pooling=pooling).numpy()


def members_of(dataset: Dataset) -> Mapping[str, SuiteMember]:
    """The sets of a suite; of another dataset, itself alone.

    A dataset that is no suite counts as one natural set.
    """
    members: Mapping[str, SuiteMember] | None = getattr(dataset, "members", None)
    return {dataset.name: SuiteMember(dataset, "natural")} if members is None else members


def _over_sets(hits: Sequence[np.ndarray]) -> GroupedSamples:
    """hits: bool [N] of each set."""
    return GroupedSamples(np.concatenate(hits), np.repeat(np.arange(len(hits)), [len(one) for one in hits]))


def _mean(samples: GroupedSamples) -> Measured:
    of_sets = np.bincount(samples.groups, samples.values) / np.bincount(samples.groups)
    return Measured(100 * float(of_sets.mean()), len(samples.values))
