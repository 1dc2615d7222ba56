"""Few-shot classification: logistic regression on frozen features of a few labelled images, over several draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from mimbench.api import (
    Dataset,
    Encoder,
    FrozenFeaturesTask,
    ImageSplit,
    LastLayersConfig,
    Measured,
    Metric,
    SampleScores,
    Solver,
    TaskContext,
    TaskResult,
    added,
    class_probabilities,
    cosmetic,
    find_listed,
    fit_standardised,
    labelled_split,
    map_over_ranks,
    own_share,
    pick_solver,
    solver_protocol,
    top_k_accuracy,
)

ShotName = Literal["5shot", "1shot", "2shot", "10shot", "1percent", "10percent"]
SHOTS: dict[ShotName, int | float] = {
    "5shot": 5,
    "1shot": 1,
    "2shot": 2,
    "10shot": 10,
    "1percent": 0.01,
    "10percent": 0.1,
}
"""Labels per class: a number, or a fraction of the images of the class, at least one. The first is the primary one."""


class FewShotConfig(LastLayersConfig):
    """Features are standardised with all training images, which needs no label."""

    draws: int = Field(5, ge=1)
    """Number of random draws of the labelled images. Every metric is the mean over draws."""
    inverse_regularisation: float = Field(1.0, gt=0)
    """scikit-learn's C. It is fixed, because there are too few labels to choose it on held-out images."""
    max_iterations: int = Field(500, ge=1)
    solver: Solver = cosmetic("auto")
    """auto: torch on a GPU, scikit-learn on the CPU. The protocol says so if it is torch."""
    lists: dict[ShotName, tuple[Path, ...]] = added({})
    """Files that name the labelled training images, one per line, such as SimCLR's 1percent.txt for "1percent", in
    place of random draws. Several files count as several draws."""

    @field_validator("lists", mode="before")
    @classmethod
    def _one_file_or_several(cls, lists: Any) -> Any:
        if not isinstance(lists, dict):
            return lists
        return {name: [files] if isinstance(files, str | Path) else files for name, files in lists.items()}

    @field_validator("lists")
    @classmethod
    def _names_files(cls, lists: dict[ShotName, tuple[Path, ...]]) -> dict[ShotName, tuple[Path, ...]]:
        for name, files in lists.items():
            if not files:
                raise ValueError(f"{name} names no file; leave it out")
        return lists


class FewShot(FrozenFeaturesTask):
    """Top-1 accuracy of logistic regression with 1, 2, 5 or 10 labels per class (1-shot, ...), or 1% or 10% of them.

    The draws depend on the seed and the training labels only, so every method gets the same images under one seed. The
    images of a 1-shot draw are among those of the 5-shot draw, and so on. A class with fewer images than shots
    contributes all of them.

    `curves["top1_NAME_by_draw"]` has the accuracy of each draw, `details["interval_over_draws"]` the 95% interval of
    their mean, by Student's t, and `details["labels"]` the number of labels: together the curve of label efficiency.

    This is mimbench's own protocol, and its 1% and 10% are the published ones only if `lists` names those files. SimCLR
    (arXiv:2002.05709) fixes one list of ImageNet images for each and fine-tunes the encoder on it. MSN
    (facebookresearch/msn@5474d5ff logistic_eval.py) takes lists as well, and centres and normalises the features of
    each image. Here images are drawn anew for each seed unless lists name them, features are standardised by all
    training images, C is 1, and patches are averaged (with pooling "token" the class token is read instead).
    """

    name: ClassVar[str] = "few-shot"
    version: ClassVar[str] = "1"
    takes_clips: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = tuple(Metric(f"top1_{name}", "percent", 0.0, 100.0) for name in SHOTS)
    Config = FewShotConfig
    config: FewShotConfig

    def protocol_on(self, device: torch.device) -> dict[str, Any]:
        return solver_protocol(self.config.solver, device)

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        self._listed(labelled_split(dataset, "train"))

    def chance(self, dataset: Dataset) -> float:
        """Accuracy of a uniform guess among the training classes. All have the same number of labels, so none is
        more frequent.
        """
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        seen = np.unique(train.labels.numpy())
        return 100 * float(np.isin(test.labels.numpy(), seen).mean()) / len(seen)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        from sklearn.preprocessing import StandardScaler  # takes a second to import

        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        context.say(f"few-shot: {self.config.draws} draws from {len(train):,} training images")
        train_x, test_x = (features.numpy() for features in self.features(train, test, context))
        scaler = StandardScaler().fit(train_x)
        train_y, unseen = train.labels.numpy(), scaler.transform(test_x)
        ranks = [rank_in_class(train_y, context.seed, draw) for draw in range(self.config.draws)]
        listed = self._listed(train)
        labelled = {
            name: listed.get(name) or [choose_labelled(one, train_y, shots) for one in ranks]
            for name, shots in SHOTS.items()
        }
        test_y = test.labels.numpy()

        def score(images: np.ndarray) -> tuple[float, np.ndarray]:
            """Top-1 accuracy with the labels of some training images, and which test images are right: bool [N]."""
            x, y = scaler.transform(train_x[images]), train_y[images]
            scores = self._scores(x, y, unseen, len(train.classes), context.device)
            return top_k_accuracy(test_y, scores, 1).value, scores.argmax(axis=1) == test_y

        results = iter(map_over_ranks(score, own_share([images for draws in labelled.values() for images in draws])))
        by_draw: dict[str, list[float]] = {}
        hits: dict[str, np.ndarray] = {}
        for name, draws in labelled.items():
            by_draw[name], hits[f"hits_{name}"] = [], np.zeros(len(test))
            for _ in draws:
                value, is_right = next(results)
                by_draw[name].append(value)
                hits[f"hits_{name}"] += is_right / len(draws)
        return TaskResult(
            {f"top1_{name}": Measured(float(np.mean(values)), len(test)) for name, values in by_draw.items()},
            curves={f"top1_{name}_by_draw": values for name, values in by_draw.items()},
            details={
                "deviation_over_draws": {name: _deviation(values) for name, values in by_draw.items()},
                "interval_over_draws": {name: _interval(values) for name, values in by_draw.items()},
                "labels": {name: len(draws[0]) for name, draws in labelled.items()},
                "classes_short_of": _short(train_y, train.classes),
                "feature_dim": int(train_x.shape[1]),
                "solver": pick_solver(self.config.solver, context.device),
            },
            scores=SampleScores(np.arange(len(test)), hits, test_y, test.attributes),
            by_sample={f"top1_{name}": 100 * hits[f"hits_{name}"] for name in SHOTS},
        )

    def _listed(self, train: ImageSplit) -> dict[ShotName, list[np.ndarray]]:
        """Indices of the training images of each list, by name of the shots."""
        files = [file for several in self.config.lists.values() for file in several]
        indices = dict(zip(files, find_listed(train, files), strict=True))
        return {name: [indices[file] for file in several] for name, several in self.config.lists.items()}

    def _scores(
        self, x: np.ndarray, y: np.ndarray, unseen: np.ndarray, classes: int, device: torch.device
    ) -> np.ndarray:
        config = self.config
        probe = fit_standardised(x, y, config.inverse_regularisation, config.max_iterations, config.solver, device)
        return class_probabilities(probe, unseen, classes)


def rank_in_class(labels: np.ndarray, seed: int, draw: int) -> np.ndarray:
    """Rank of each image, from 0, in a random order of its class: int64 [N]."""
    # The streams of RandomState and MT19937 are frozen, so a draw is the same with every numpy release.
    order = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, draw]))).permutation(len(labels))
    ranks = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        ranks[members] = np.arange(len(members))
    return ranks


def choose_labelled(ranks: np.ndarray, labels: np.ndarray, shots: int | float) -> np.ndarray:
    """Sorted indices of the images whose labels are used.

    Args:
        ranks: from `rank_in_class`.
        labels: int [N].
        shots: images per class (int), or fraction of each class (float), rounded to at least one image.
    """
    counts = np.bincount(labels)
    limits = np.full(len(counts), float(shots))
    if isinstance(shots, float):
        limits = np.maximum(1, np.floor(shots * counts + 0.5))
    return np.flatnonzero(ranks < limits[labels])


def _deviation(values: list[float]) -> float | None:
    """Sample standard deviation over draws; None for a single draw."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _interval(values: list[float]) -> list[float] | None:
    """The 95% interval of the mean over draws, by Student's t; None for a single draw."""
    from scipy.stats import t

    deviation = _deviation(values)
    if deviation is None:
        return None
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]


def _short(labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Shots -> {class: its number of training images} for classes with fewer images than shots."""
    counts = {classes[label]: int(count) for label, count in zip(*np.unique(labels, return_counts=True), strict=True)}
    short: dict[str, Any] = {}
    for shots in sorted(shots for shots in SHOTS.values() if isinstance(shots, int)):
        too_small = {name: count for name, count in counts.items() if count < shots}
        if too_small:
            short[str(shots)] = too_small
    return short
