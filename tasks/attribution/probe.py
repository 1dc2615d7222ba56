"""A linear probe as a differentiable function of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mimbench.api import Encoder, fit_standardised


class Probe(nn.Module):
    """Logits of a logistic regression on the pooled, standardised features of an encoder."""

    weight: Tensor
    bias: Tensor

    def __init__(self, encoder: Encoder, weight: Tensor, bias: Tensor, *, layer: int, pooling: str) -> None:
        """weight: [classes, D]. bias: [classes]."""
        super().__init__()
        self.encoder, self.layer, self.pooling = encoder, layer, pooling
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, C, S, S] -> logits [B, classes]."""
        features = self.encoder.features(images, self.layer).pool(self.pooling).float()
        return features @ self.weight.T + self.bias

    def with_encoder(self, encoder: Encoder) -> Probe:
        """The same head on another encoder."""
        return Probe(encoder, self.weight, self.bias, layer=self.layer, pooling=self.pooling)


def fit_head(features: np.ndarray, labels: np.ndarray, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """Weight [classes, D] and bias [classes] of a logistic regression on features [N, D] as they are.

    It is fitted on standardised features. A class without training images gets a logit of minus infinity.

    Args:
        strength: scikit-learn's C.
    """
    mean, scale = features.mean(0), np.maximum(features.std(0), 1e-6)
    fitted: Any = fit_standardised(
        (features - mean) / scale, labels, strength, 500, solver="sklearn", device=torch.device("cpu")
    )
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(coefficients) == 1:  # two classes: the logit of the second against 0
        coefficients = np.concatenate((np.zeros_like(coefficients), coefficients))
        intercepts = np.concatenate((np.zeros_like(intercepts), intercepts))
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, -np.inf)
    weight[fitted.classes_] = coefficients / scale
    bias[fitted.classes_] = intercepts - (coefficients / scale) @ mean
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
