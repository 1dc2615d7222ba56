"""Intervals of a mean over seeds that also cover the test samples: other ones of the same kind could have been drawn.

A metric on one sample under one seed is y[s, i] = mean + seed[s] + sample[i] + both[s, i]: all seeds are tested on the
same samples. With S seeds and N samples, the variance of the mean is v_seed / S + v_sample / N + v_both / (S N).

seeds            the spread of the S means, which estimates v_seed / S + v_both / (S N): Student's t, S - 1
images           the spread of the N means over seeds, which estimates v_sample / N + v_both / (S N): Student's t,
                 N - 1; a bootstrap over samples tends to it. Of a mean over groups, the variances of the groups'
                 means are added, with the degrees of freedom of Welch and Satterthwaite
seeds,images     the half widths of both, added in squares (Zou & Donner, Statistics in Medicine 27, 2008). v_both
                 counts twice, so that it covers the mean rather too often than too seldom
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mimbench.report.scores.statistics import LEVEL, LEVEL_TEXT, Interval

SEEDS, IMAGES = "seeds", "images"
COVERS: Mapping[str, str] = {
    "seeds": f"{LEVEL_TEXT} interval of the mean for other seeds, with the test images as they are (Student's t)",
    "images": f"{LEVEL_TEXT} interval of the mean for other test images, with the seeds as they are",
    "seeds,images": f"{LEVEL_TEXT} interval of the mean for other seeds and other test images",
}
"""What an interval covers, by the value of --interval."""


@dataclass(frozen=True)
class McNemar:
    """The exact test of McNemar (Psychometrika 12, 1947) for two classifiers on the same samples."""

    first_only: int
    """Samples that the first has right and the second has not."""
    second_only: int
    p_value: float
    """Two-sided, of the binomial distribution with probability 1/2."""


def mean_interval(
    values: Mapping[int, np.ndarray], covers: Collection[str], groups: np.ndarray | None = None
) -> Interval | None:
    """The interval of the mean over all seeds and samples.

    Args:
        values: seed -> value on each sample, [N], in one order; or differences of two methods.
        covers: SEEDS, IMAGES or both.
        groups: group of each sample, int [N], of a mean over groups of the mean over each: other samples of the same
            groups could have been drawn. None: one group.

    Returns:
        None if it is to cover seeds, and there is one; or samples, and there is one.
    """
    y = np.stack([values[seed] for seed in sorted(values)]).astype(np.float64)
    seeds, samples = y.shape
    groups = np.zeros(samples, np.int64) if groups is None else groups
    sizes = np.bincount(groups)
    if (SEEDS in covers and seeds < 2) or (IMAGES in covers and sizes.min() < 2):
        return None
    of_seeds = (y / (len(sizes) * sizes[groups])).sum(1)
    squares = 0.0
    if SEEDS in covers:
        squares += _quantile(seeds - 1) ** 2 * float(of_seeds.var(ddof=1)) / seeds
    if IMAGES in covers:
        of_samples = y.mean(0)
        variances = np.array([of_samples[groups == group].var(ddof=1) / size for group, size in enumerate(sizes)])
        if variances.any():
            # Welch (Biometrika 34, 1947); samples - groups if all groups have one size and one variance.
            freedom = variances.sum() ** 2 / (variances**2 / (sizes - 1)).sum()
            squares += _quantile(freedom) ** 2 * float(variances.sum()) / len(sizes) ** 2
    mean, half = float(of_seeds.mean()), math.sqrt(squares)
    return Interval(mean - half, mean + half)


def resampled_interval(
    values: Mapping[int, float], resampled: np.ndarray, images: int, covers: Collection[str]
) -> Interval | None:
    """As `mean_interval`, for a metric that is no mean over samples.

    Args:
        values: seed -> value.
        resampled: mean over the seeds on samples drawn with replacement, one for each draw: a bootstrap.
        images: number of samples that each draw has.
    """
    if (SEEDS in covers and len(values) < 2) or (IMAGES in covers and images < 2):
        return None
    squares = 0.0
    if SEEDS in covers:
        squares += _quantile(len(values) - 1) ** 2 * float(np.var(list(values.values()), ddof=1)) / len(values)
    if IMAGES in covers:
        squares += _quantile(len(resampled) - 1) ** 2 * float(np.nanvar(resampled, ddof=1))
    mean, half = float(np.mean(list(values.values()))), math.sqrt(squares)
    return Interval(mean - half, mean + half)


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's test of what two classifiers have right: bool [N] each, on the same samples."""
    from scipy.stats import binomtest

    one, two = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(one, two, float(binomtest(one, one + two).pvalue) if one + two else 1.0)


def _quantile(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))
