"""What follows a mean in tables: its spread over seeds, or an interval, which may cover the test samples too.

Values on single samples are read from the files beside the records.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mimbench.errors import InputError
from mimbench.report.scores.average_precision import ResampledPrecision
from mimbench.report.scores.choice import Choice
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
from mimbench.store.samples import Detections, read_samples

Samples = np.ndarray | Detections
DRAWS = 200
"""Of images with replacement, for an average precision: its interval then varies by 5 % with the draws."""


def describe_spread(counts: Collection[int], choice: Choice) -> list[str]:
    """What follows the means of a table, for its remarks. counts: numbers of seeds."""
    if choice.interval:
        alone = ["without [ ]: one seed"] if SEEDS in choice.interval and 1 in counts else []
        return [f"[ ]: {COVERS[','.join(choice.interval)]}", *alone]
    remarks = []
    if set(counts) - {1}:
        if choice.spread == "sd":
            remarks.append("±: std over n seeds (sample standard deviation)")
        else:
            remarks.append("±: standard error of the mean (std / √n) over n seeds")
    if 1 in counts:
        remarks.append("without ±: one seed")
    return remarks


def interval_of(score: Score, covers: Sequence[str]) -> Interval | None:
    """The interval of a score's mean; None if it cannot be had from so few seeds or samples.

    Raises:
        InputError: it is to cover samples, and a record has no values of them.
    """
    if list(covers) == [SEEDS] or score.problem:
        return score.summary.interval
    samples = _samples(score)
    precisions = {seed: one for seed, one in samples.items() if isinstance(one, Detections)}
    if precisions:
        return resampled_interval(score.values, _resampled(precisions), covers)
    return mean_interval(_in_unit(samples), covers)


def with_interval(difference: Summary, score: Score, partner: Score, covers: Sequence[str]) -> Summary:
    """A difference paired by seed, with an interval that covers test samples too, paired by sample.

    Raises:
        InputError: as `interval_of`; or both were not tested on the same samples.
    """
    if IMAGES not in covers:
        return difference
    seeds = sorted(set(score.values) & set(partner.values))
    detections = [_of_seeds(_samples(each), seeds) for each in (score, partner)]
    if all(detections):
        differences = {seed: score.values[seed] - partner.values[seed] for seed in seeds}
        _matches(*(each[seeds[0]].objects for each in detections))
        resampled = _resampled(detections[0]) - _resampled(detections[1])
        return replace(difference, interval=resampled_interval(differences, resampled, covers))
    one, two = (_in_unit(_samples(each)) for each in (score, partner))
    paired = {seed: one[seed] - two[seed] for seed in sorted(set(one) & set(two)) if _matches(one[seed], two[seed])}
    return replace(difference, interval=mean_interval(paired, covers))


def compare_single_seeds(score: Score, partner: Score) -> McNemar | None:
    """McNemar's test if both share one seed, and the metric counts what is right; else None."""
    shared = sorted(set(score.values) & set(partner.values))
    if len(shared) != 1:
        return None
    one, two = _samples(score)[shared[0]], _samples(partner)[shared[0]]
    if isinstance(one, Detections) or isinstance(two, Detections) or not one.dtype == two.dtype == bool:
        return None
    return mcnemar(one, two) if _matches(one, two) else None


def _of_seeds(samples: Mapping[int, Samples], seeds: Sequence[int]) -> dict[int, Detections]:
    """Detections by seed; {} if they are none."""
    return {seed: one for seed in seeds if isinstance(one := samples[seed], Detections)}


def _resampled(detections: Mapping[int, Detections]) -> np.ndarray:
    """Average precision, mean over seeds, on DRAWS draws of the images with replacement.

    All seeds get the images of one draw, and so do two methods.
    """
    precisions = [ResampledPrecision(one, one.thresholds) for one in detections.values()]
    images = len(next(iter(detections.values())).objects)
    rng = np.random.RandomState(0)
    draws = [np.bincount(rng.randint(0, images, images), minlength=images) for _ in range(DRAWS)]
    return np.array([np.mean([precision(times) for precision in precisions]) for times in draws])


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
    return len(samples.objects if isinstance(samples, Detections) else samples)


def _in_unit(samples: Mapping[int, Samples]) -> dict[int, np.ndarray]:
    """Bits as 0 and 100 percent."""
    return {
        seed: 100.0 * values if values.dtype == bool else values
        for seed, values in samples.items()
        if isinstance(values, np.ndarray)
    }


def _matches(one: np.ndarray, two: np.ndarray) -> bool:
    if len(one) != len(two):
        raise InputError(
            f"--interval images: two methods were tested on {len(one)} and {len(two)} samples, which cannot be paired; "
            "leave --baseline out, or use --interval seeds"
        )
    return True
