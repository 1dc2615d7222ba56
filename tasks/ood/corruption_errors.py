"""Mean corruption error on ImageNet-C, relative to AlexNet's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ALEXNET_ERRORS: Mapping[str, float] = {
    "gaussian_noise": 88.6428,
    "shot_noise": 89.4468,
    "impulse_noise": 92.2640,
    "defocus_blur": 81.9880,
    "glass_blur": 82.6268,
    "motion_blur": 78.5948,
    "zoom_blur": 79.8360,
    "snow": 86.6816,
    "frost": 82.6572,
    "fog": 81.9324,
    "brightness": 56.4592,
    "contrast": 85.3204,
    "elastic_transform": 64.6056,
    "pixelate": 71.7840,
    "jpeg_compression": 60.6500,
}
"""AlexNet's error in percent, mean over the severities, for each of the 15 corruptions of mCE.

google-research/augmix@202cf4c8 imagenet.py (ALEXNET_ERR), after hendrycks/robustness; rounded in arXiv:1903.12261,
table 1.
"""
EXTRA_ERRORS: Mapping[str, float] = {
    "speckle_noise": 84.5388,
    "gaussian_blur": 78.7108,
    "spatter": 71.7512,
    "saturate": 65.8248,
}
"""As ALEXNET_ERRORS, for the four further corruptions of the set, which the authors keep for validation; mCE leaves
them out."""
SEVERITIES = (1, 2, 3, 4, 5)


def relative_error(top1: Sequence[float], alexnet: float) -> float:
    """Corruption error CE: the error summed over the severities, relative to AlexNet's, percent.

    Args:
        top1: accuracy at each severity, percent.
        alexnet: its mean error over the severities, percent.
    """
    return 100 * (100 - sum(top1) / len(top1)) / alexnet


def mean_relative_error(top1: Mapping[str, Sequence[float]]) -> float:
    """mCE: the mean of the relative errors of the 15 corruptions, percent (arXiv:1903.12261, section 4.2).

    Args:
        top1: accuracy at each severity by corruption, percent. Extra corruptions are left out.
    """
    errors = [relative_error(top1[name], alexnet) for name, alexnet in ALEXNET_ERRORS.items()]
    return sum(errors) / len(errors)
