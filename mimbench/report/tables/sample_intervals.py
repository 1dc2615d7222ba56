"""What follows a mean in tables: its spread over seeds, or an interval, which may cover the test samples too.

Values on single samples are read from the files beside the records.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mimbench.errors import InputError
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.sample_error import COVERS, IMAGES, SEEDS, McNemar, mcnemar, mean_interval
from mimbench.report.scores.score import Score
from mimbench.report.scores.statistics import Interval, Summary
from mimbench.store.reading import read_body
from mimbench.store.samples import read_samples


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
    return mean_interval(_in_unit(_samples(score)), covers)


def with_interval(difference: Summary, score: Score, partner: Score, covers: Sequence[str]) -> Summary:
    """A difference paired by seed, with an interval that covers test samples too, paired by sample.

    Raises:
        InputError: as `interval_of`; or both were not tested on the same samples.
    """
    if IMAGES not in covers:
        return difference
    one, two = (_in_unit(_samples(each)) for each in (score, partner))
    paired = {seed: one[seed] - two[seed] for seed in sorted(set(one) & set(two)) if _matches(one[seed], two[seed])}
    return replace(difference, interval=mean_interval(paired, covers))


def compare_single_seeds(score: Score, partner: Score) -> McNemar | None:
    """McNemar's test if both share one seed, and the metric counts what is right; else None."""
    shared = sorted(set(score.values) & set(partner.values))
    if len(shared) != 1:
        return None
    one, two = _samples(score)[shared[0]], _samples(partner)[shared[0]]
    return mcnemar(one, two) if one.dtype == two.dtype == bool and _matches(one, two) else None


def _samples(score: Score) -> dict[int, np.ndarray]:
    """By seed: the value on each sample, as stored."""
    metric, measured = str(score.shared["metric"]), {}
    for seed, file in score.files.items():
        if file is None:
            raise InputError("--interval images: these records are not on disk; use --interval seeds")
        measured[seed] = read_samples(Path(file), read_body(Path(file)), metric)
    if len({len(values) for values in measured.values()}) > 1:
        raise InputError(f"--interval images: the seeds of {metric} were tested on different numbers of samples")
    return measured


def _in_unit(samples: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Bits as 0 and 100 percent."""
    return {seed: 100.0 * values if values.dtype == bool else values for seed, values in samples.items()}


def _matches(one: np.ndarray, two: np.ndarray) -> bool:
    if len(one) != len(two):
        raise InputError(
            f"--interval images: two methods were tested on {len(one)} and {len(two)} samples, which cannot be paired; "
            "leave --baseline out, or use --interval seeds"
        )
    return True
