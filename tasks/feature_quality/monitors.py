"""Monitors of pretraining: the label-free measures, and two small probes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import Monitor, MonitorInput, fit_standardised
from mimbench_tasks.feature_quality import measures

VIEWS = 10
"""Views per image of the monitor `lidar`; the task takes 50, as the paper does."""
NEIGHBOURS, TEMPERATURE = 20, 0.07
"""Those of the task knn."""


class RankMe(Monitor):
    """RankMe of the features; see `measures.rankme`."""

    name: ClassVar[str] = "rankme"

    def measure(self, seen: MonitorInput) -> float:
        return measures.rankme(seen.features)


class EffectiveRank(Monitor):
    """Effective rank of the features' covariance; see `measures.effective_rank`."""

    name: ClassVar[str] = "effective-rank"

    def measure(self, seen: MonitorInput) -> float:
        return measures.effective_rank(seen.features)


class AlphaReQ(Monitor):
    """Decay of the eigenvalues of the features' covariance; see `measures.alpha_req`."""

    name: ClassVar[str] = "alpha-req"

    def measure(self, seen: MonitorInput) -> float:
        return measures.alpha_req(seen.features)


class LiDAR(Monitor):
    """LiDAR over 10 augmented views per image; see `measures.lidar`."""

    name: ClassVar[str] = "lidar"
    views: ClassVar[int] = VIEWS

    def measure(self, seen: MonitorInput) -> float:
        assert seen.views is not None
        return measures.lidar(seen.views)


class FeatureStd(Monitor):
    """Standard deviation of L2-normalised features; see `measures.feature_std`."""

    name: ClassVar[str] = "feature-std"

    def measure(self, seen: MonitorInput) -> float:
        return measures.feature_std(seen.features)


class Uniformity(Monitor):
    """Uniformity of the features on the sphere; see `measures.uniformity`."""

    name: ClassVar[str] = "uniformity"

    def measure(self, seen: MonitorInput) -> float:
        return measures.uniformity(seen.features)


class _Probe(Monitor):
    """Top-1 accuracy, in percent, on the held-out fifth of the watched images."""

    needs_labels: ClassVar[bool] = True

    def measure(self, seen: MonitorInput) -> float:
        assert seen.labels is not None
        x, y = seen.features, seen.labels
        answers = self.answer(x[seen.fitted], y[seen.fitted], x[seen.held_out], seen.classes)
        return 100 * float((answers == y[seen.held_out]).double().mean())

    @abstractmethod
    def answer(self, x: Tensor, y: Tensor, unseen: Tensor, classes: int) -> Tensor:
        """The classes that a probe of features x [N, D] and labels y names for unseen features [M, D]: int64 [M]."""


class KNNProbe(_Probe):
    """Top-1 accuracy of 20 nearest neighbours among the watched images, on a held-out fifth of them."""

    name: ClassVar[str] = "knn"

    def answer(self, x: Tensor, y: Tensor, unseen: Tensor, classes: int) -> Tensor:
        similarity = F.normalize(unseen, dim=1) @ F.normalize(x, dim=1).T
        best, places = similarity.topk(min(NEIGHBOURS, len(x)), dim=1)
        votes = torch.zeros(len(unseen), classes, dtype=torch.float64)
        return votes.scatter_add(1, y[places], ((best.double() - 1) / TEMPERATURE).exp()).argmax(1)


class LinearProbe(_Probe):
    """Top-1 accuracy of logistic regression (C = 1) on the watched images, on a held-out fifth of them."""

    name: ClassVar[str] = "linear"

    def answer(self, x: Tensor, y: Tensor, unseen: Tensor, classes: int) -> Tensor:
        mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
        probe = fit_standardised(((x - mean) / scale).numpy(), y.numpy(), 1.0, 200, "sklearn", torch.device("cpu"))
        return torch.from_numpy(probe.predict(((unseen - mean) / scale).numpy()))
