"""What follows a mean in tables: its spread over seeds, or an interval, which may cover the test samples too.

Values on single samples are read from the files beside the records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mimbench.errors import InputError
from mimbench.report.scores.average_precision import ResampledPrecision
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.pixel_scores import ResampledPixels
from mimbench.report.scores.sample_error import (
    COVERS,
    IMAGES,
    SEEDS,
    McNemar,
    mcnemar,
    mean_interval,
    resampled_interval,
)
from mimbench.report.scores.score import Score
from mimbench.report.scores.statistics import Interval, Summary
from mimbench.store.reading import read_body
from mimbench.store.samples import Detections, Grouped, Pixels, Samples, read_samples

DRAWS = 200
"""Of images with replacement, for an average precision or an mIoU: its interval then varies by 5 % with the draws."""


def describe_spread(counts: Collection[int], choice: Choice) -> list[str]:
    """What follows the means of a table, for its remarks. counts: numbers of seeds."""
    if choice.interval:
        alone = ["without [ ]: one seed"] if SEEDS in choice.interval and 1 in counts else []
        return [f"[ ]: {COVERS[','.join(choice.interval)]}", *alone]
    if not set(counts) - {1}:
        return []
    if choice.spread == "sd":
        return ["±: std over n seeds (sample standard deviation)"]
    return ["±: standard error of the mean (std / √n) over n seeds"]


def interval_of(score: Score, covers: Sequence[str]) -> Interval | None:
    """The interval of a score's mean; None if it cannot be had from so few seeds or samples.

    Raises:
        InputError: it is to cover samples, and a record has no values of them.
    """
    if list(covers) == [SEEDS] or score.problem:
        return score.summary.interval
    samples = _samples(score)
    if drawn := _of_seeds(samples, list(samples)):
        return resampled_interval(score.values, _resampled(drawn), _images(drawn), covers)
    return mean_interval(_in_unit(samples), covers, _groups(samples))


def with_interval(difference: Summary, score: Score, partner: Score, covers: Sequence[str]) -> Summary:
    """A difference paired by seed, with an interval that covers test samples too, paired by sample.

    Raises:
        InputError: as `interval_of`; or both were not tested on the same samples.
    """
    if IMAGES not in covers:
        return difference
    seeds = sorted(set(score.values) & set(partner.values))
    of_both = [_samples(each) for each in (score, partner)]
    drawn = [_of_seeds(samples, seeds) for samples in of_both]
    if all(drawn):
        differences = {seed: score.values[seed] - partner.values[seed] for seed in seeds}
        _matches(*(_tested(each[seeds[0]]) for each in drawn))
        resampled = _resampled(drawn[0]) - _resampled(drawn[1])
        return replace(difference, interval=resampled_interval(differences, resampled, _images(drawn[0]), covers))
    one, two = (_in_unit(samples) for samples in of_both)
    paired = {seed: one[seed] - two[seed] for seed in seeds if _matches(one[seed], two[seed])}
    return replace(difference, interval=mean_interval(paired, covers, _groups(of_both[0])))


def compare_single_seeds(score: Score, partner: Score) -> McNemar | None:
    """McNemar's test if both share one seed, and the metric counts what is right; else None."""
    shared = sorted(set(score.values) & set(partner.values))
    if len(shared) != 1:
        return None
    one, two = _samples(score)[shared[0]], _samples(partner)[shared[0]]
    if not (isinstance(one, np.ndarray) and isinstance(two, np.ndarray) and one.dtype == two.dtype == bool):
        return None
    return mcnemar(one, two) if _matches(one, two) else None


def _of_seeds(samples: Mapping[int, Samples], seeds: Sequence[int]) -> dict[int, Detections | Pixels]:
    """What a bootstrap needs by seed; {} if the metric is a mean."""
    return {seed: one for seed in seeds if isinstance(one := samples[seed], Detections | Pixels)}


def _resampled(drawn: Mapping[int, Detections | Pixels]) -> np.ndarray:
    """The score, mean over seeds, on DRAWS draws of the images with replacement.

    All seeds get the images of one draw, and so do two methods.
    """
    scores: list[Callable[[np.ndarray], float]] = [
        ResampledPixels(one) if isinstance(one, Pixels) else ResampledPrecision(one, one.thresholds)
        for one in drawn.values()
    ]
    images = _images(drawn)
    rng = np.random.RandomState(0)
    draws = [np.bincount(rng.randint(0, images, images), minlength=images) for _ in range(DRAWS)]
    return np.array([np.mean([score(times) for score in scores]) for times in draws])


def _images(drawn: Mapping[int, Detections | Pixels]) -> int:
    return _count(next(iter(drawn.values())))


def _samples(score: Score) -> dict[int, Samples]:
    """By seed: the value on each sample, as stored."""
    metric = str(score.shared["metric"])
    measured: dict[int, Samples] = {}
    for seed, file in score.files.items():
        if file is None:
            raise InputError("--interval images: these records are not on disk; use --interval seeds")
        measured[seed] = read_samples(Path(file), read_body(Path(file)), metric)
    if len({_count(values) for values in measured.values()}) > 1:
        raise InputError(f"--interval images: the seeds of {metric} were tested on different numbers of samples")
    return measured


def _count(samples: Samples) -> int:
    return len(_tested(samples))


def _tested(samples: Samples) -> np.ndarray:
    """An array with a row per sample."""
    if isinstance(samples, Pixels):
        return samples.truth
    if isinstance(samples, Detections):
        return samples.objects
    return samples.values if isinstance(samples, Grouped) else samples


def _in_unit(samples: Mapping[int, Samples]) -> dict[int, np.ndarray]:
    """Bits as 0 and 100 percent."""
    values = {seed: _tested(one) for seed, one in samples.items() if isinstance(one, np.ndarray | Grouped)}
    return {seed: 100.0 * one if one.dtype == bool else one for seed, one in values.items()}


def _groups(samples: Mapping[int, Samples]) -> np.ndarray | None:
    """Group of each sample, which the seeds share; None if there is one."""
    one = next(iter(samples.values()))
    return one.groups if isinstance(one, Grouped) else None


def _matches(one: np.ndarray, two: np.ndarray) -> bool:
    if len(one) != len(two):
        raise InputError(
            f"--interval images: two methods were tested on {len(one)} and {len(two)} samples, which cannot be paired; "
            "leave --baseline out, or use --interval seeds"
        )
    return True
