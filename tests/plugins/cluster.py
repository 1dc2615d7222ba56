"""A task without training labels: k-means clusters of frozen features, compared with the classes."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from mimbench.api import (
    Dataset,
    Encoder,
    FrozenFeaturesConfig,
    FrozenFeaturesTask,
    Measured,
    Metric,
    TaskContext,
    TaskResult,
    labelled_split,
)


def matched(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Percent of the images whose cluster is the one that is assigned to their class (Hungarian algorithm)."""
    size = int(max(clusters.max(), labels.max())) + 1
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (clusters, labels), 1)
    return 100 * float(counts[linear_sum_assignment(-counts)].sum()) / len(labels)


class ClusterConfig(FrozenFeaturesConfig):
    clusters: int | None = Field(None, ge=2)
    """Default: as many as classes."""
    starts: int = Field(10, ge=1)
    """Runs of k-means from other initial centres; the best one counts."""


class Cluster(FrozenFeaturesTask):
    """Clusters are fitted to the training images, and test images get the nearest one."""

    name = "cluster"
    version = "1"
    metrics = (
        Metric("accuracy", "percent", 0.0, 100.0),
        Metric("nmi", "percent", 0.0, 100.0),
        Metric("ari", "percent", -50.0, 100.0),
    )
    Config = ClusterConfig
    config: ClusterConfig

    def chance(self, dataset: Dataset) -> float:
        """Random clusters are matched with classes too: the mean accuracy of 20 draws."""
        test, draws = labelled_split(dataset, "test"), np.random.default_rng(0)
        count, labels = self.config.clusters or len(test.classes), test.labels.numpy()
        return float(np.mean([matched(draws.integers(count, size=len(labels)), labels) for _ in range(20)]))

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        train_x, test_x = (F.normalize(features).numpy() for features in self.features(train, test, context))
        count = self.config.clusters or len(test.classes)
        means = KMeans(count, n_init=self.config.starts, random_state=context.seed).fit(train_x)
        clusters, labels = means.predict(test_x), test.labels.numpy()
        scores = {
            "accuracy": matched(clusters, labels),
            "nmi": 100 * float(normalized_mutual_info_score(labels, clusters)),
            "ari": 100 * float(adjusted_rand_score(labels, clusters)),
        }
        return TaskResult(
            {name: Measured(score, len(labels)) for name, score in scores.items()},
            details={"clusters": count, "inertia": float(means.inertia_)},
        )
