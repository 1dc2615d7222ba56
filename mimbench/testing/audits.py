"""The checks of an audit: a task that is calibrated on data with a planted effect.

    for result in check_audit(MyAudit):
        print(result.name, result.status, result.message)

As tests, one per check: `@parametrize_checks(audit_suite(MyAudit))`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mimbench.contract import Audit, AuditInput, Config, Encoder, ImageSplit
from mimbench.testing.checks import Failure, Result, Suite, check
from mimbench.testing.colours import Kind, LabelLog
from mimbench.testing.form import FORM_CHECKS, make_suite
from mimbench.testing.pixels import Pixels
from mimbench.testing.task_runs import Ran, build_untrained, run_task
from mimbench.testing.task_subject import TaskSubject
from mimbench.testing.tasks import equal_seeds_give_equal_results, frozen_weights_are_unchanged, metrics_are_as_declared

SEEDS = range(3)
"""Seeds of each dose."""
NULL_SEEDS = range(8)
"""Seeds of the null: the negative control, in which nothing is planted."""
T_99 = 3.4995
"""Quantile 0.995 of Student's t with 7 degrees of freedom: the 99 % interval of the mean of 8 values."""
NEAR_END = 0.95
"""Score that the oracle must reach, if chance is 0 and the end of the range is 1."""


class AuditSubject(TaskSubject):
    """An audit to check, with its options. The checks share its runs on what it plants."""

    def make_audit(self) -> Audit:
        task = self.task
        assert isinstance(task, Audit)
        return task

    @property
    def doses(self) -> tuple[float, ...]:
        return tuple(getattr(self.plugin, "doses", ()))

    def ran(self, kind: Kind = "plain", *, batch: int = 64, again: bool = False) -> Ran:
        """Run the audit on its highest dose; for the checks that all tasks share."""
        return self.planted(self.doses[-1] if self.doses else 0.0, 0, batch=batch, again=again)

    def planted(self, dose: float, seed: int, *, batch: int = 64, again: bool = False) -> Ran:
        """The run on a planted effect of this dose."""
        return self._once(("dose", dose, seed, batch, again), self.make_audit().plant, dose, batch=batch, seed=seed)

    def oracle(self) -> Ran:
        return self._once(("oracle",), self.make_audit().oracle, seed=0)

    def untrained(self) -> Ran:
        """The run on the highest dose with an encoder, and a method around it, that have seen nothing."""

        def plant(seed: int, folder: Path) -> AuditInput:
            planted = self.make_audit().plant(self.doses[-1], seed, folder)
            encoder = _fresh_encoder(planted, seed)
            method = Pixels(Pixels.Config(), _fresh_encoder(planted, seed)).eval() if planted.method else None
            return replace(planted, encoder=encoder, method=method)

        return self._once(("untrained",), plant, seed=0)

    def _once(self, key: tuple[Any, ...], plant: Any, *arguments: float, seed: int, batch: int = 64) -> Ran:
        if key not in self._runs:
            folder = self.folder / "-".join(map(str, key))
            data = folder / "data"
            data.mkdir(parents=True)
            planted = plant(*arguments, seed, data)
            self._runs[key] = run_task(
                self.task,
                planted.encoder or _fresh_encoder(planted, seed),
                planted.dataset,
                folder / "run",
                log=LabelLog(),
                batch=batch,
                seed=seed,
                method=planted.method,
                pretrained_on=planted.pretrained_on,
            )
        return self._runs[key]

    def effect(self, ran: Ran) -> float:
        """The primary metric as an effect: 0 is chance, 1 is `effect_end` of its range."""
        return self._scaled(ran, self.primary.high if self.make_audit().effect_end == "high" else self.primary.low)

    def effects(self, dose: float, seeds: Sequence[int]) -> list[float]:
        return [self.effect(self.planted(dose, seed)) for seed in seeds]

    def mean_of(self, dose: float, seeds: Sequence[int] = SEEDS) -> float:
        """Mean over seeds of the primary metric, in its unit."""
        name = self.primary.name
        return statistics.fmean(self.planted(dose, seed).result.metrics[name].value for seed in seeds)


def _fresh_encoder(planted: AuditInput, seed: int) -> Encoder:
    """A small ViT for the images of what is planted."""
    if planted.encoder is not None:
        return build_untrained(planted.encoder.image_size, planted.encoder.in_channels, seed)
    split = planted.dataset.split("train")
    if not isinstance(split, ImageSplit):
        raise Failure("the planted dataset has no plain images, and no encoder; let `plant` return its encoder")
    return build_untrained(min(split[0][0].shape[-2:]), planted.dataset.channels, seed)


@check("doses", needs=["metadata_is_complete"])
def doses_rise_from_zero(subject: AuditSubject) -> None:
    """The audit declares three or more doses, which rise from 0."""
    doses = subject.doses
    if len(doses) < 3 or doses[0] != 0 or any(high <= low for low, high in itertools.pairwise(doses)):
        raise Failure(f"doses is {doses}; declare three or more, rising, of which the first is 0")
    if subject.make_audit().effect_end not in ("low", "high"):
        raise Failure(f"effect_end is {subject.make_audit().effect_end!r}; set it to 'low' or 'high'")


@check("plant", needs=["metrics_are_as_declared"])
def score_rises_with_the_dose(subject: AuditSubject) -> str:
    """The mean over 3 seeds never falls from dose to dose, and the highest dose is above the null in every seed."""
    means = [statistics.fmean(subject.effects(dose, SEEDS)) for dose in subject.doses]
    values = ", ".join(f"{subject.mean_of(dose):.1f} at {dose:g}" for dose in subject.doses)
    text = f"{subject.primary.name} by dose: {values}"
    null, highest = (subject.effects(dose, SEEDS) for dose in (subject.doses[0], subject.doses[-1]))
    if any(high < low for low, high in itertools.pairwise(means)) or min(highest) <= max(null):
        raise Failure(f"{text}, means of {len(SEEDS)} seeds; correct what `plant` plants, or how the score is computed")
    return text


@check("oracle", needs=["metrics_are_as_declared"])
def oracle_scores_at_the_end(subject: AuditSubject) -> str:
    """The positive control moves the score to `effect_end`, or 95 % of the way there from chance."""
    ran, end = subject.oracle(), subject.make_audit().effect_end
    text = subject.describe(ran)
    if subject.effect(ran) < NEAR_END:
        raise Failure(f"oracle: {text}; it should be at the {end} end: the audit misses the positive control")
    return text


@check("plant", needs=["metrics_are_as_declared"])
def null_is_chance(subject: AuditSubject) -> str:
    """Of the negative control, dose 0, chance lies in the 99 % interval of the mean over 8 seeds."""
    name, null = subject.primary.name, [subject.planted(subject.doses[0], seed) for seed in NULL_SEEDS]
    differences = [ran.result.metrics[name].value - ran.chance for ran in null]
    mean = statistics.fmean(differences)
    width = T_99 * statistics.stdev(differences) / math.sqrt(len(differences))
    text = f"{name} - chance: {mean:+.1f} +- {width:.1f} {subject.primary.unit}, {len(null)} seeds"
    if abs(mean) > width + 1e-9:
        raise Failure(
            f"nothing is planted, and {text}; treat both groups in the same way, fit on other samples than those that "
            "are scored, or correct `chance`"
        )
    return text


@check("run", needs=["metrics_are_as_declared"])
def untrained_encoder_is_measured(subject: AuditSubject) -> str:
    """The audit runs on an untrained encoder; its score is shown, for what the data alone gives away."""
    return f"untrained: {subject.describe(subject.untrained())}"


AUDIT_CHECKS = (
    *FORM_CHECKS,
    doses_rise_from_zero,
    replace(metrics_are_as_declared, needs=("metadata_is_complete", "doses_rise_from_zero")),
    score_rises_with_the_dose,
    oracle_scores_at_the_end,
    null_is_chance,
    untrained_encoder_is_measured,
    frozen_weights_are_unchanged,
    equal_seeds_give_equal_results,
)


def audit_suite(
    audit: type[Audit], options: Mapping[str, Any] | Config | None = None, *, folder: Path | None = None
) -> Suite:
    """The checks of an audit, none of which has run.

    Args:
        audit: the class.
        options: options of its Config that differ from the defaults.
        folder: an empty folder for data, features and trainings. Default: a temporary one.

    Raises:
        InputError: the options are not valid, or `waivers` of the class names no check.
    """
    return make_suite(AuditSubject(audit, options, folder), AUDIT_CHECKS)


def check_audit(audit: type[Audit], options: Mapping[str, Any] | Config | None = None, **setting: Any) -> list[Result]:
    """Run every check of an audit. The arguments are those of `audit_suite`."""
    return audit_suite(audit, options, **setting).run()
