"""The checks of a task.

    for result in check_task(MyTask, {"option": 1}):
        print(result.name, result.status, result.message)

As tests, one per check: `@parametrize_checks(task_suite(MyTask))`. A check that does not apply to a task, by what it
declares (`trains_encoder`, `needs`, `needs_reconstruction`), is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mimbench.contract import Config, Measured, Task, TaskResult
from mimbench.testing.checks import Failure, Result, Skip, Suite, check
from mimbench.testing.colours import Kind
from mimbench.testing.form import FORM_CHECKS, make_suite
from mimbench.testing.task_subject import TaskSubject

NEAR_BEST = 0.9
"""Score that leaked labels must reach, if chance is 0 and the best value is 1."""


@check("run", needs=["metadata_is_complete"])
def metrics_are_as_declared(subject: TaskSubject) -> None:
    """The task runs. Each metric is declared, finite, in range and has an n; `absent` says why one is missing."""
    ran = subject.ran()
    wrong = [*_undeclared(subject.task, ran.result), *_out_of_range(subject.task, ran.result)]
    if not subject.primary.low <= ran.chance <= subject.primary.high:
        wrong.append(f"chance {ran.chance} is outside the range of {subject.primary.name}")
    try:
        json.dumps([dict(ran.result.details), *map(list, ran.result.curves.values())], allow_nan=False)
    except (TypeError, ValueError) as error:
        wrong.append(f"details or curves are not finite JSON data: {error}")
    if wrong:
        raise Failure(f"{', '.join(wrong)}; report each metric as `metrics` declares it")


@check("run", needs=["metrics_are_as_declared"])
def leaked_labels_score_near_best(subject: TaskSubject) -> None:
    """Images with one colour per class get a score near the best."""
    subject.require_labels()
    ran = subject.ran()
    if subject.score(ran) < NEAR_BEST:
        raise Failure(
            f"images with one colour per class: {subject.describe(ran)}; it should be near the best: train longer, "
            "or look for labels and images that do not belong together"
        )


@check("run", needs=["metrics_are_as_declared"])
def only_scoring_reads_test_labels(subject: TaskSubject) -> None:
    """No test label is read before the last request for features or training, and none is learnt from.

    Test labels are shuffled over the images, so that nothing can predict them. A task that still scores better than
    chance has learnt them, or does not compare with them.
    """
    subject.require_labels()
    early = subject.ran().log.read_early
    if early:
        raise Failure(f"test labels were read before a request for {early}; read them when all is trained, to score")
    ran = subject.ran("test-shuffled")
    best = subject.primary.high if subject.primary.higher_is_better else subject.primary.low
    if subject.score(ran) > subject.allowed(ran) / abs(best - ran.chance):
        raise Failure(
            f"test labels in random order: {subject.describe(ran)}; it should be chance: learn from the train split "
            "only, and score against the test labels"
        )


@check("chance", needs=["only_scoring_reads_test_labels"])
def shuffled_labels_give_chance(subject: TaskSubject) -> None:
    """Labels that are unrelated to the images give chance: they are neither predicted nor systematically missed."""
    subject.require_labels()
    ran = subject.ran("shuffled")
    allowed = subject.allowed(ran)
    if abs(ran.result.metrics[subject.primary.name].value - ran.chance) > allowed:
        raise Failure(
            f"labels in random order: {subject.describe(ran)}, allowed: chance +-{allowed:.1f}; correct `chance`, or "
            "how the score is computed"
        )


@check("run", needs=["metrics_are_as_declared"])
def frozen_weights_are_unchanged(subject: TaskSubject) -> None:
    """Parameters and buffers of the encoder do not change by a single bit."""
    if subject.task.trains_encoder:
        raise Skip("it trains the encoder")
    ran = subject.ran()
    changed = [name for name, value in ran.before.items() if not torch.equal(value, ran.after[name])]
    if changed:
        raise Failure(f"changed: {', '.join(changed[:3])}; work on a copy, or declare trains_encoder = True")


@check("run", needs=["metrics_are_as_declared", "equal_seeds_give_equal_results"])
def batch_size_does_not_matter(subject: TaskSubject) -> None:
    """Features extracted in batches of 7 and of 64 give the same metrics, up to one test image."""
    if subject.task.trains_encoder:
        raise Skip("it trains the encoder, whose batches are part of its protocol")
    runs, differing = [subject.ran("faint").result.metrics, subject.ran("faint", batch=7).result.metrics], []
    for metric in subject.task.metrics:
        one, other = (metrics.get(metric.name, Measured(metric.low, 1)) for metrics in runs)
        if abs(one.value - other.value) > 1.001 * (metric.high - metric.low) / one.n:
            differing.append(f"{metric.name} {one.value:.3f} and {other.value:.3f}")
    if differing:
        raise Failure(f"batches of 64 and of 7: {', '.join(differing)}; use no statistics of a batch of features")


@check("run", needs=["metrics_are_as_declared"])
def equal_seeds_give_equal_results(subject: TaskSubject) -> None:
    """A second run with the same seed gives the same result to the last bit."""
    # The loss curve of a training shows differences even if the score is perfect.
    kind: Kind = "plain" if subject.task.trains_encoder else "faint"
    one, other = subject.ran(kind).result, subject.ran(kind, again=True).result
    parts = ("metrics", "curves", "details")
    differing = [part for part in parts if dict(getattr(one, part)) != dict(getattr(other, part))]
    if differing:
        raise Failure(f"differing: {', '.join(differing)}; draw from context.seed only")


@check("run", needs=["metrics_are_as_declared"])
def training_depends_on_processes_as_declared(subject: TaskSubject) -> None:
    """A task that says that it does not depend on the number of processes trains models that share their batches."""
    ran = subject.ran()
    if ran.unshared and not ran.depends_on_processes:
        raise Failure(
            f"{', '.join(sorted(set(ran.unshared)))}: each process draws its own numbers, and depends_on_processes "
            "returns ''; set shares_batch on the model, or let depends_on_processes say why"
        )


TASK_CHECKS = (
    *FORM_CHECKS,
    metrics_are_as_declared,
    leaked_labels_score_near_best,
    only_scoring_reads_test_labels,
    shuffled_labels_give_chance,
    frozen_weights_are_unchanged,
    equal_seeds_give_equal_results,
    batch_size_does_not_matter,
    training_depends_on_processes_as_declared,
)


def task_suite(
    task: type[Task], options: Mapping[str, Any] | Config | None = None, *, folder: Path | None = None
) -> Suite:
    """The checks of a task, none of which has run.

    Args:
        task: the class.
        options: options of its Config that differ from the defaults. If the task trains, choose options with which it
            trains for seconds and still learns six colours.
        folder: an empty folder for data, features and trainings. Default: a temporary one.

    Raises:
        InputError: the options are not valid, or `waivers` of the class names no check.
    """
    return make_suite(TaskSubject(task, options, folder), TASK_CHECKS)


def check_task(task: type[Task], options: Mapping[str, Any] | Config | None = None, **setting: Any) -> list[Result]:
    """Run every check of a task. The arguments are those of `task_suite`."""
    return task_suite(task, options, **setting).run()


def _undeclared(task: Task, result: TaskResult) -> list[str]:
    names, absent = [metric.name for metric in task.metrics], result.details.get("absent", {})
    wrong = [f"{name} is not declared" for name in result.metrics if name not in names]
    wrong += [f"{name} is declared twice" for name in sorted(set(names)) if names.count(name) > 1]
    wrong += [f"{name} is missing without a reason" for name in names if name not in {*result.metrics, *absent}]
    if names[0] not in result.metrics:
        wrong.append(f"the primary metric {names[0]} is missing")
    return wrong


def _out_of_range(task: Task, result: TaskResult) -> list[str]:
    wrong = []
    for metric in task.metrics:
        measured = result.metrics.get(metric.name, Measured(metric.low, 1))
        if not metric.low <= measured.value <= metric.high:  # so is NaN
            wrong.append(f"{metric.name} {measured.value} is outside {metric.low:g} to {metric.high:g} {metric.unit}")
        if measured.n < 1:
            wrong.append(f"{metric.name} is taken over {measured.n} samples")
    return wrong
