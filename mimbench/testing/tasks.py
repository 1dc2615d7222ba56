"""Sanity checks that every task passes, built-in or third-party.

    subject = Subject(MyTask, {"option": 1}, folder=tmp_path)
    for finding in check_task(subject):
        assert finding.passed is not False, finding

Or one test for each: `@pytest.mark.parametrize("check", TASK_CHECKS, ids=name_of)` and `examine(subject, check)`. A
check that does not apply to a task, by what it declares (`trains_encoder`, `needs`, `needs_reconstruction`), is
skipped and says why.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from mimbench.contract import Encoder, InputConfig, Measured, Method, Metric, Task, TaskContext, TaskResult
from mimbench.contract.validation import validate
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.engine.fit import fit
from mimbench.harness.running.features import FrozenFeatures
from mimbench.store.store import Store
from mimbench.testing.colours import Colours, Kind, LabelLog, WatchedFeatures
from mimbench.testing.pixels import Pixels
from mimbench.testing.scenes import ColourScenes

NEAR_BEST = 0.9
"""Score that leaked labels must reach, if chance is 0 and the best value is 1."""
DEVIATIONS = 4.5
"""Standard deviations that a score with shuffled labels may differ from chance. One correct task in 150,000 fails."""


@dataclass(frozen=True)
class Finding:
    """Result of a check. `passed` is None if the check does not apply; `detail` then says why."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Ran:
    """One run of the task under check."""

    result: TaskResult
    chance: float
    before: Mapping[str, Tensor]
    """State of the encoder before the run, and of the method if the task needs one."""
    after: Mapping[str, Tensor]
    log: LabelLog


class Subject:
    """A task to check, with its options. The checks share its runs.

    The task runs on Colours, or on ColourScenes if it needs boxes or masks. Any encoder can distinguish their classes.
    If the task trains, choose options with which it trains for seconds and still learns these classes.
    """

    def __init__(self, task: type[Task], options: Mapping[str, Any] | None = None, *, folder: Path) -> None:
        """Prepare a task for its checks.

        Args:
            task: the class.
            options: options of its Config that differ from the defaults.
            folder: an empty folder for data, features and trainings.

        Raises:
            InputError: the options are not valid.
        """
        self.task = task(validate(task.Config, options or {}, f"tasks.{task.name}"))
        self.folder = folder
        self._runs: dict[Any, Ran] = {}

    @property
    def primary(self) -> Metric:
        return self.task.metrics[0]

    @property
    def dataset(self) -> type[Colours] | type[ColourScenes] | None:
        """The dataset that provides what the task needs; None if neither does."""
        return next((kind for kind in (Colours, ColourScenes) if self.task.needs <= kind.provides), None)

    def ran(self, kind: Kind = "plain", *, batch: int = 64, again: bool = False) -> Ran:
        """Run the task on its dataset, or return the earlier run with the same arguments.

        Args:
            kind: of dataset; see Colours.
            batch: batch size of feature extraction.
            again: run it a second time.
        """
        key = (kind, batch, again)
        if key not in self._runs:
            folder = self.folder / "-".join(map(str, key))
            assert self.dataset is not None, f"{self.task.name} needs what no dataset here has"
            self._runs[key] = self._run(self.dataset(kind, folder / "data"), batch, folder)
        return self._runs[key]

    def _run(self, dataset: Colours | ColourScenes, batch: int, folder: Path) -> Ran:
        device, input_config, log = torch.device("cpu"), InputConfig(image_size=dataset.side), dataset.log
        encoder = _encoder(dataset.side)
        method = Pixels(Pixels.Config(), _encoder(dataset.side)).eval() if self.task.needs_reconstruction else None
        before = _states(encoder, method)
        self.task.check(encoder, dataset)
        store = Store(folder)
        features = FrozenFeatures(encoder, input_config, device, {}, store, say=_silent, batch=batch)
        trainer = functools.partial(
            fit, seed=0, device=device, workdir=folder / "training", console=Console(quiet=True)
        )
        context = TaskContext(
            seed=0,
            device=device,
            workdir=store.work("task"),
            input=input_config,
            fit=log.watched(trainer, "training"),
            features=WatchedFeatures(features, log),
            say=_silent,
            method=method,
        )
        with log.listening():
            result = self.task.run(encoder, dataset, context)
        return Ran(result, self.task.chance(dataset), before, _states(encoder, method), log)

    def score(self, ran: Ran) -> float:
        """The primary metric, scaled so that chance is 0 and the best value is 1."""
        best = self.primary.high if self.primary.higher_is_better else self.primary.low
        return (ran.result.metrics[self.primary.name].value - ran.chance) / (best - ran.chance)

    def allowed(self, ran: Ran) -> float:
        """How far the primary metric may differ from chance if nothing was learnt, in its unit."""
        metric, n = self.primary, ran.result.metrics[self.primary.name].n
        width = metric.high - metric.low
        share = min(max((ran.chance - metric.low) / width, 0.05), 0.95)
        return DEVIATIONS * width * math.sqrt(share * (1 - share) / n)

    def describe(self, ran: Ran) -> str:
        """The primary metric, chance and n, for the detail of a finding."""
        measured = ran.result.metrics[self.primary.name]
        return f"{self.primary.name} {measured.value:.1f} {self.primary.unit}, chance {ran.chance:.1f}, n {measured.n}"


Check = Callable[[Subject], Finding]


def leaked_labels_score_near_best(subject: Subject) -> Finding:
    """Images with one colour per class get a score near the best."""
    ran = subject.ran()
    return _finding(subject.score(ran) >= NEAR_BEST, subject.describe(ran))


def shuffled_labels_give_chance(subject: Subject) -> Finding:
    """Labels that are unrelated to the images give chance: they are neither predicted nor systematically missed."""
    ran, metric = subject.ran("shuffled"), subject.primary
    allowed = subject.allowed(ran)
    return _finding(
        abs(ran.result.metrics[metric.name].value - ran.chance) <= allowed,
        f"{subject.describe(ran)}, allowed: chance +-{allowed:.1f}",
    )


def only_scoring_reads_test_labels(subject: Subject) -> Finding:
    """No test label is read before the last request for features or training, and the task does not learn from any.

    Each test label is moved to the next class, so correct predictions count as wrong. A task that still scores better
    than chance has learnt from test labels.
    """
    early = subject.ran().log.read_early
    if early:
        return _finding(False, f"test labels were read before a request for {early}")
    ran = subject.ran("shifted")
    best = subject.primary.high if subject.primary.higher_is_better else subject.primary.low
    worse = subject.score(ran) <= subject.allowed(ran) / abs(best - ran.chance)
    return _finding(worse, f"every test label moved to the next class: {subject.describe(ran)}")


def frozen_weights_are_unchanged(subject: Subject) -> Finding:
    """Parameters and buffers of the encoder do not change by a single bit."""
    if subject.task.trains_encoder:
        return _skipped("it trains the encoder")
    ran = subject.ran()
    changed = [name for name, value in ran.before.items() if not torch.equal(value, ran.after[name])]
    return _finding(not changed, f"changed: {', '.join(changed)}" if changed else "unchanged")


def batch_size_does_not_matter(subject: Subject) -> Finding:
    """Features extracted in batches of 7 and of 64 give the same metrics, up to one test image."""
    if subject.task.trains_encoder:
        return _skipped("it trains the encoder, whose batches are part of its protocol")
    runs, differing = [subject.ran("faint").result.metrics, subject.ran("faint", batch=7).result.metrics], []
    for metric in subject.task.metrics:
        one, other = (metrics.get(metric.name, Measured(metric.low, 1)) for metrics in runs)
        if abs(one.value - other.value) > 1.001 * (metric.high - metric.low) / one.n:
            differing.append(f"{metric.name} {one.value:.3f} and {other.value:.3f}")
    return _finding(not differing, f"batches of 64 and of 7: {'; '.join(differing) or 'equal'}")


def metrics_are_as_declared(subject: Subject) -> Finding:
    """Every metric is declared, finite, in range and has an n; details["absent"] gives reasons for missing ones."""
    ran = subject.ran()
    wrong = [*_undeclared(subject.task, ran.result), *_out_of_range(subject.task, ran.result)]
    if not subject.primary.low <= ran.chance <= subject.primary.high:
        wrong.append(f"chance {ran.chance} is outside the range of {subject.primary.name}")
    try:
        json.dumps([dict(ran.result.details), *map(list, ran.result.curves.values())], allow_nan=False)
    except (TypeError, ValueError) as error:
        wrong.append(f"details or curves are not finite JSON data: {error}")
    return _finding(not wrong, "; ".join(wrong) or "as declared")


def equal_seeds_give_equal_results(subject: Subject) -> Finding:
    """A second run with the same seed gives the same result to the last bit."""
    # The loss curve of a training shows differences even if the score is perfect.
    kind: Kind = "plain" if subject.task.trains_encoder else "faint"
    one, other = subject.ran(kind).result, subject.ran(kind, again=True).result
    parts = ("metrics", "curves", "details")
    differing = [part for part in parts if dict(getattr(one, part)) != dict(getattr(other, part))]
    return _finding(not differing, f"differing: {', '.join(differing)}" if differing else "equal")


TASK_CHECKS: tuple[Check, ...] = (
    leaked_labels_score_near_best,
    shuffled_labels_give_chance,
    only_scoring_reads_test_labels,
    frozen_weights_are_unchanged,
    batch_size_does_not_matter,
    metrics_are_as_declared,
    equal_seeds_give_equal_results,
)


def name_of(check: Check) -> str:
    """Name of a check, for reports and for pytest's `ids`."""
    return getattr(check, "__name__", repr(check))


def examine(subject: Subject, check: Check) -> Finding:
    """Run one check. It is skipped if no dataset fits the task, or if it is about labels and the task uses none."""
    reason = _reason_to_skip(subject, check)
    finding = _skipped(reason) if reason else check(subject)
    return Finding(name_of(check), finding.passed, finding.detail)


def check_task(subject: Subject) -> list[Finding]:
    """Run every check, in the order of TASK_CHECKS."""
    return [examine(subject, check) for check in TASK_CHECKS]


_ABOUT_LABELS = (leaked_labels_score_near_best, shuffled_labels_give_chance, only_scoring_reads_test_labels)


def _reason_to_skip(subject: Subject, check: Check) -> str | None:
    needs = subject.task.needs
    if subject.dataset is None:
        return f"it needs {', '.join(sorted(needs))}, which neither labelled images nor scenes have"
    return "it uses no labels" if check in _ABOUT_LABELS and not needs & {"labels", "boxes", "masks"} else None


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


def _encoder(side: int) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ViTConfig(patch_size=4, embed_dim=16, depth=2, num_heads=2)
        return ViT(config, image_size=side, in_channels=Colours.channels)


def _states(encoder: Encoder, method: Method | None) -> dict[str, Tensor]:
    state = dict(encoder.state_dict())
    if method is not None:
        state |= {f"method.{name}": value for name, value in method.state_dict().items()}
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def _silent(text: str) -> None:
    return


def _finding(passed: bool, detail: str) -> Finding:
    return Finding("", passed, detail)


def _skipped(why: str) -> Finding:
    return Finding("", None, why)
