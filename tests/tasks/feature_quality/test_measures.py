"""The label-free measures on matrices whose value is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from mimbench_tasks.feature_quality.measures import (
    DELTA,
    EPSILON,
    alpha_req,
    effective_rank,
    feature_std,
    lidar,
    rankme,
    uniformity,
)


def entropic_rank(values, epsilon=0.0) -> float:
    shares = np.array(values) / np.sum(values) + epsilon
    return math.exp(-(shares * np.log(shares)).sum())


def orthogonal(rows: int, columns: int) -> torch.Tensor:
    """Columns of length sqrt(rows) with mean 0, at right angles to each other."""
    return torch.from_numpy(hadamard(rows)[:, 1 : columns + 1].astype(np.float64))


def with_variances(variances, rows: int = 256) -> torch.Tensor:
    """Features whose covariance has these eigenvalues, in a turned basis."""
    values = torch.tensor(variances, dtype=torch.float64)
    x = orthogonal(rows, len(values)) * (values * (rows - 1) / rows).sqrt()
    turn, _ = torch.linalg.qr(
        torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(1)).double()
    )
    return x @ turn


@pytest.mark.parametrize("values", [(1.0,) * 6, (3.0, 2.0, 1.0), (5.0, 0.5, 0.25, 0.01)])
def test_rankme_is_the_entropic_rank_of_the_singular_values(values):
    x = orthogonal(64, len(values)) * torch.tensor(values, dtype=torch.float64)
    expected = entropic_rank(values, EPSILON)
    assert rankme(x) == pytest.approx(expected, rel=1e-9)
    assert rankme(7.5 * x.float()) == pytest.approx(expected, rel=1e-4)  # the scale does not matter
    assert rankme(x[:, :1].repeat(1, 5)) == pytest.approx(1, abs=1e-4)


def test_rankme_counts_the_mean_and_effective_rank_does_not():
    x = with_variances((4.0, 1.0, 1.0))
    shifted = x + 1000
    assert rankme(shifted) < 1.05 < rankme(x)
    assert effective_rank(shifted) == pytest.approx(effective_rank(x), rel=1e-6)


@pytest.mark.parametrize("values", [(2.0,) * 5, (4.0, 1.0, 1.0), (9.0, 3.0, 0.5, 0.1)])
def test_effective_rank_is_that_of_the_covariance(values):
    assert effective_rank(with_variances(values)) == pytest.approx(entropic_rank(values), rel=1e-9)


def test_features_without_any_direction_have_rank_0():
    assert rankme(torch.zeros(20, 4)) == 0
    assert effective_rank(torch.ones(20, 4)) == 0
    assert math.isnan(alpha_req(torch.ones(20, 4)))
    assert lidar(torch.ones(20, 3, 4)) == 0


@pytest.mark.parametrize(("width", "alpha"), [(120, 1.0), (120, 1.7), (8, 0.5), (40, 3.0)])
def test_alpha_is_the_exponent_of_a_power_law(width, alpha):
    variances = [rank**-alpha for rank in range(1, width + 1)]
    assert alpha_req(with_variances(variances)) == pytest.approx(alpha, rel=1e-6)


def test_alpha_is_that_of_ranks_11_to_100_if_there_are_enough():
    variances = [1e3 * rank**-0.1 for rank in range(1, 11)] + [rank**-2.0 for rank in range(11, 101)]
    variances += [1e-9] * 20
    assert alpha_req(with_variances(variances)) == pytest.approx(2.0, rel=1e-6)


def views_with(between, within: float) -> torch.Tensor:
    """64 images, 32 views each: covariances diag(between) of the means and within * I around them."""
    means = orthogonal(64, len(between)) * torch.tensor(between, dtype=torch.float64).sqrt()
    around = orthogonal(32, len(between)) * math.sqrt(within)
    return means[:, None] + around[None]


@pytest.mark.parametrize("within", [0.0, 0.3, 20.0])
@pytest.mark.parametrize("between", [(1.0,) * 6, (8.0, 2.0, 1.0)])
def test_lidar_is_the_rank_of_what_lies_between_images(between, within):
    expected = entropic_rank(between, EPSILON)
    assert lidar(views_with(between, within)) == pytest.approx(expected, rel=1e-9)


def test_lidar_weighs_a_direction_by_its_noise():
    views = views_with((1.0, 1.0), 1.0)
    views[..., 1] = views[..., 1].mean(1, keepdim=True) + 3 * (views[..., 1] - views[..., 1].mean(1, keepdim=True))
    ratios = [1 / (1 + DELTA), 1 / (9 + DELTA)]
    assert lidar(views) == pytest.approx(entropic_rank(ratios, EPSILON), rel=1e-9)


def test_feature_std_of_one_feature_is_0_and_of_equal_classes_that_of_a_share():
    assert feature_std(torch.randn(1, 5).expand(30, 5) * torch.arange(1, 31)[:, None]) == pytest.approx(0, abs=1e-7)
    classes = torch.eye(4).repeat(25, 1) * 3
    assert feature_std(classes) == pytest.approx(math.sqrt(0.25 * 0.75 * 100 / 99), rel=1e-9)
    spread = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(spread) == pytest.approx(1 / math.sqrt(64), rel=0.01)


def test_uniformity_of_known_distances():
    assert uniformity(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(-8)
    assert uniformity(torch.eye(7) * 2) == pytest.approx(-4)  # squared distance 2 between all
    assert uniformity(torch.ones(50, 3)) == pytest.approx(0, abs=1e-12)
    x = torch.randn(2500, 3, generator=torch.Generator().manual_seed(0))  # more than one part
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    pairs = torch.pdist(unit).square()
    assert uniformity(x) == pytest.approx(float((-2 * pairs).exp().mean().log()), rel=1e-9)
