"""Label-free measures of features, each as its paper defines it. They compute in float64 on the features' device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7
"""Added to each share before its logarithm is taken, as RankMe does for float32 features."""
DELTA = 1e-4
"""Added to the diagonal of LiDAR's within-image covariance."""
TAIL = (11, 100)
"""Ranks of the eigenvalues that alpha-ReQ fits: the first ones depart from a power law. The range is mimbench's choice;
the authors' public code has others, such as 3 to 99."""
FEWEST = 20
"""With fewer eigenvalues in that range, all are fitted."""
_ROWS = 2048


def rankme(features: Tensor) -> float:
    """exp(-sum p_k log p_k), p_k = s_k / sum(s) + EPSILON, with the singular values s of the features as they are.

    Garrido et al., "RankMe", arXiv:2210.02885, equation 1. From 1 (one direction) to min(N, D); 0 for zeros.

    features: [N, D].
    """
    return _entropic_rank(_singular_values(features.double()), EPSILON)


def effective_rank(features: Tensor) -> float:
    """exp(-sum p_k log p_k), p_k = v_k / sum(v), with the eigenvalues v of the covariance of the features.

    Roy & Vetterli, "The effective rank", EUSIPCO 2007, definition 1, applied to the covariance. Unlike RankMe it does
    not see the mean of the features, and weighs directions by variance. From 1 to min(N - 1, D); 0 without variance.

    features: [N, D].
    """
    return _entropic_rank(_variances(features), 0.0)


def alpha_req(features: Tensor) -> float:
    """The alpha of a power law v_k ~ k^-alpha, with the eigenvalues v_k of the covariance of the features.

    Agrawal et al., "alpha-ReQ", NeurIPS 2022. Near 1 is best by the paper; far above, a few directions dominate. The
    fit is that of Stringer et al. (Nature 571, 2019), which the authors use: least squares of log v_k on log k, with
    weights of 1/k. The ranks that it covers are TAIL, mimbench's choice: the authors' public code has others.

    features: [N, D]. nan if fewer than two eigenvalues are above 0.
    """
    variances = _variances(features)
    largest = variances.max() if len(variances) else torch.zeros(())
    variances = variances[variances > 1e-12 * largest]
    if len(variances) < 2:
        return float("nan")
    first, last = TAIL
    start = first - 1 if min(len(variances), last) - (first - 1) >= FEWEST else 0
    tail = variances[start:last]
    ranks = torch.arange(start + 1, start + len(tail) + 1, dtype=torch.float64, device=tail.device)
    weights, x, y = 1 / ranks, ranks.log(), tail.log()
    x = x - (weights * x).sum() / weights.sum()
    return float(-(weights * x * y).sum() / (weights * x * x).sum())


def lidar(views: Tensor, delta: float = DELTA) -> float:
    """exp(-sum p_k log p_k), p_k = e_k / sum(e) + EPSILON, with the eigenvalues e of S_w^-1/2 S_b S_w^-1/2.

    S_b is the covariance of the images' means over their views, S_w the mean covariance of an image's views plus
    delta I. Thilak et al., "LiDAR", arXiv:2312.04000, section 4. From 1 to min(n - 1, D); 0 if all means are equal.

    views: [n, q, D], features of q augmented views of each of n images.
    """
    views = views.double()
    count, per_image, width = views.shape
    means = views.mean(1)
    within = (views - means[:, None]).reshape(-1, width)
    centred = means - means.mean(0)
    # Equal eigenvalues: with S_w = L L^T, those of L^-1 S_b L^-T, whose root is the matrix of rows below.
    covariance = within.T @ within / (count * per_image) + delta * torch.eye(
        width, dtype=views.dtype, device=views.device
    )
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), centred.T, upper=False)
    return _entropic_rank(_singular_values(whitened).square() / count, EPSILON)


def feature_std(features: Tensor) -> float:
    """Mean over dimensions of the standard deviation of L2-normalised features.

    Chen & He, "SimSiam", arXiv:2011.10566, section 4.1: 0 if all images have one feature, 1 / sqrt(D) if features are
    spread evenly over the sphere.

    features: [N, D], N > 1.
    """
    return float(F.normalize(features.double(), dim=1).std(0).mean())


def uniformity(features: Tensor, t: float = 2.0) -> float:
    """log of the mean of exp(-t |x - y|^2) over all pairs of different images, with L2-normalised features x, y.

    Wang & Isola, "alignment and uniformity", arXiv:2005.10242, equation 4. From -4 t (opposite) to 0 (all equal); lower
    is more uniform.

    features: [N, D], N > 1.
    """
    x = F.normalize(features.double(), dim=1)
    total = x.new_zeros(())
    for rows in x.split(_ROWS):
        total += (-t * torch.cdist(rows, x, compute_mode="donot_use_mm_for_euclid_dist").square()).exp().sum()
    pairs = len(x) * (len(x) - 1)
    return float(((total - len(x)) / pairs).log())  # a pair of an image with itself counts 1


def _entropic_rank(values: Tensor, epsilon: float) -> float:
    """The exponential of the entropy of values >= 0 as shares of their sum; 0 if all are 0."""
    total = values.sum()
    if not len(values) or not total > 0:
        return 0.0
    shares = values / total + epsilon
    return float((-torch.special.xlogy(shares, shares).sum()).exp())


def _variances(features: Tensor) -> Tensor:
    """Eigenvalues of the covariance, from the largest: those that N images can have."""
    x = features.double()
    return _singular_values(x - x.mean(0)).square() / max(1, len(x) - 1)


def _singular_values(matrix: Tensor) -> Tensor:
    """From the largest. A tall matrix is reduced to its triangular factor first, which is faster."""
    if matrix.shape[0] > 2 * matrix.shape[1]:
        matrix = torch.linalg.qr(matrix, mode="r").R
    return torch.linalg.svdvals(matrix)
