"""A task: each test image gets the class whose mean feature is the nearest."""

import torch

from mimbench.api import (
    Dataset,
    Encoder,
    FrozenFeaturesConfig,
    FrozenFeaturesTask,
    Metric,
    TaskContext,
    TaskResult,
    labelled_split,
    top_k_accuracy,
)


class NearestMean(FrozenFeaturesTask):
    """Top-1 accuracy of a nearest-class-mean classifier on frozen features. It has nothing to train or tune."""

    name = "nearest-mean"
    version = "1"
    metrics = (Metric("top1", "percent", 0.0, 100.0),)
    Config = FrozenFeaturesConfig

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        train_features, test_features = self.features(train, test, context)
        labels = range(len(train.classes))
        means = torch.stack([train_features[train.labels == label].mean(0) for label in labels])
        scores = -torch.cdist(test_features, means)  # [N, classes]; the nearest mean has the highest score
        return TaskResult({"top1": top_k_accuracy(test.labels.numpy(), scores.numpy(), 1)})
