"""The sanity checks of tasks: every built-in task passes them, and each fails on a task that is wrong in its way."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from mimbench import registry
from mimbench.contract import Measured, Metric, Task, TaskConfig, TaskResult
from mimbench.errors import InputError
from mimbench.recipe.document import merge
from mimbench.testing import tasks as kit
from mimbench.testing.tasks import TASK_CHECKS, Subject, check_task, examine, name_of
from mimbench_tasks.detection.task import Detection
from mimbench_tasks.few_shot import FewShot
from mimbench_tasks.finetune.task import Finetune
from mimbench_tasks.knn import KNN
from mimbench_tasks.linear_probe import LinearProbe
from mimbench_tasks.reconstruction.task import Reconstruction
from mimbench_tasks.robustness.task import Robustness
from mimbench_tasks.segmentation.task import Segmentation

BRIEF = {"epochs": 12, "batch_size": 48, "base_lr": 30.0, "lr_divisor": None, "schedule": {"warmup_epochs": 1}}
"""LARS moves a weight by a thousandth of its norm times the rate: 60 steps need a high one."""
SECONDS = {"epochs": 10, "batch_size": 40, "base_lr": 5e-3, "schedule": {"warmup_epochs": 1}}
SCENES = {"epochs": 24, "batch_size": 8, "base_lr": 8e-3, "schedule": {"warmup_epochs": 1}}
DETECTOR = {"train": SCENES, "strides": [8], "channels": 32, "convs": 1, "window": 0, "pictures": 1}
SEGMENTOR = {"train": SCENES | {"batch_size": 6}, "strides": [4, 8], "channels": 16, "background_weight": 0.3}
OPTIONS = {
    "knn": (KNN, {}),
    "robustness": (Robustness, {"severities": [1], "test_limit": 90}),
    "reconstruction": (Reconstruction, {"generated": 40, "steps": 2, "judge": {"epochs": 2, "workers": 0}}),
    "finetune": (Finetune, {"train": SECONDS}),
    "segmentation": (Segmentation, SEGMENTOR | {"dropout": 0.0, "pictures": 1}),
    "detection": (Detection, DETECTOR),
    "few-shot": (FewShot, {"draws": 2}),
    **{
        f"linear-probe {name}": (LinearProbe, merge(protocol.options, {"train": BRIEF} if name == "mae" else {}))
        for name, protocol in LinearProbe.protocols.items()
    },
}


@pytest.fixture(scope="module", params=OPTIONS)
def subject(request, tmp_path_factory):
    task, options = OPTIONS[request.param]
    return Subject(task, options, folder=tmp_path_factory.mktemp("subject"))


@pytest.mark.parametrize("check", TASK_CHECKS, ids=name_of)
def test_built_in_tasks_pass(subject, check):
    finding = examine(subject, check)
    assert finding.name == name_of(check)
    assert finding.passed or check in inapplicable(subject.task), finding.detail
    assert finding.passed is not False, finding.detail


def inapplicable(task: Task) -> tuple:
    """The checks that may be skipped, by what a task declares."""
    frozen = (kit.frozen_weights_are_unchanged, kit.batch_size_does_not_matter) if task.trains_encoder else ()
    about_labels = (
        kit.leaked_labels_score_near_best,
        kit.shuffled_labels_give_chance,
        kit.only_scoring_reads_test_labels,
    )
    return frozen + (() if task.needs - {"images"} else about_labels)


def test_every_built_in_task_is_here():
    tasks = [registry.tasks.load(name) for name in registry.tasks.names()]
    ours = {task.name for task in tasks if task.__module__.startswith("mimbench_tasks.")}
    assert {task.name for task, _ in OPTIONS.values()} == ours


class Toy(Task):
    """The nearest class mean: an honest task, that others here are dishonest versions of."""

    name, version = "toy", "1"
    metrics: ClassVar = (Metric("top1", "percent", 0.0, 100.0), Metric("top2", "percent", 0.0, 100.0))

    def run(self, encoder, dataset, context):
        train, test = dataset.split("train"), dataset.split("test")
        train_x = context.features(train, "train", layer=-1, pooling="mean")
        test_x = context.features(test, "test", layer=-1, pooling="mean")
        means = torch.stack([train_x[train.labels == label].mean(0) for label in train.labels.unique()])
        return self.scored(-torch.cdist(test_x, means), test.labels)

    def scored(self, scores, labels):
        best = scores.argsort(1, descending=True)
        hits = [100 * float((best[:, :k] == labels[:, None]).any(1).float().mean()) for k in (1, 2)]
        return TaskResult({f"top{k}": Measured(hit, len(labels)) for k, hit in enumerate(hits, 1)})

    def chance(self, dataset):
        return 100 / len(dataset.split("train").classes)


class Deaf(Toy):
    def scored(self, scores, labels):
        return super().scored(torch.zeros_like(scores), labels)


class Boastful(Toy):
    def scored(self, scores, labels):
        return TaskResult({"top1": Measured(100.0, len(labels)), "top2": Measured(100.0, len(labels))})


class Peeking(Toy):
    """Reads test labels first, and answers with them."""

    def run(self, encoder, dataset, context):
        labels = dataset.split("test").labels
        super().run(encoder, dataset, context)
        return self.scored(torch.eye(6)[labels], labels)


class Learning(Toy):
    """Learns from the test images, with labels, but reads these late."""

    def run(self, encoder, dataset, context):
        test = dataset.split("test")
        test_x = context.features(test, "test", layer=-1, pooling="mean")
        context.features(dataset.split("train"), "train", layer=-1, pooling="mean")
        means = torch.stack([test_x[test.labels == label].mean(0) for label in range(6)])
        return self.scored(-torch.cdist(test_x, means), test.labels)


class Shifting(Toy):
    """Moves the encoder's weights by one bit after it has been used."""

    def run(self, encoder, dataset, context):
        result = super().run(encoder, dataset, context)
        with torch.no_grad():
            weight = encoder.body.norm.weight
            weight.copy_(torch.nextafter(weight, torch.tensor(2.0)))
        return result


class Normalising(Toy):
    """Takes the mean of a batch off its features, and so depends on who else is in the batch."""

    def run(self, encoder, dataset, context):
        hook = encoder.body.norm.register_forward_hook(lambda module, inputs, output: output - output.mean(0))
        try:
            return super().run(encoder, dataset, context)
        finally:
            hook.remove()


class Guessing(Toy):
    def scored(self, scores, labels):
        return super().scored(scores + 0.2 * torch.from_numpy(np.random.default_rng().random(scores.shape)), labels)


class Misreporting(Toy):
    reports: ClassVar = {"top1": Measured(float("nan"), 180), "top2": Measured(100.5, 0), "top3": Measured(1.0, 180)}
    details: ClassVar = {}

    def scored(self, scores, labels):
        return TaskResult(self.reports, details=self.details)


class Silent(Misreporting):
    reports: ClassVar = {"top2": Measured(100.0, 180)}
    details: ClassVar = {"spread": float("inf")}


WRONG = {
    kit.leaked_labels_score_near_best: (Deaf, "top1 16.7 percent, chance 16.7, n 180"),
    kit.shuffled_labels_give_chance: (Boastful, "top1 100.0 percent"),
    kit.only_scoring_reads_test_labels: (Peeking, "read before a request for features"),
    kit.frozen_weights_are_unchanged: (Shifting, "changed: body.norm.weight"),
    kit.batch_size_does_not_matter: (Normalising, "batches of 64 and of 7: top1"),
    kit.metrics_are_as_declared: (Misreporting, "top3 is not declared"),
    kit.equal_seeds_give_equal_results: (Guessing, "differing: metrics"),
}


def test_an_honest_task_passes(tmp_path):
    findings = check_task(Subject(Toy, folder=tmp_path))
    assert [finding.name for finding in findings] == [name_of(check) for check in TASK_CHECKS]
    assert all(finding.passed for finding in findings), findings


@pytest.mark.parametrize("check", TASK_CHECKS, ids=name_of)
def test_every_check_fails_on_a_task_that_is_wrong_in_its_way(check, tmp_path):
    task, detail = WRONG[check]
    finding = examine(Subject(task, folder=tmp_path), check)
    assert finding.passed is False
    assert detail in finding.detail


def test_learning_from_test_labels_is_found_even_where_they_are_read_last(tmp_path):
    finding = examine(Subject(Learning, folder=tmp_path), kit.only_scoring_reads_test_labels)
    assert finding.passed is False
    assert "every test label moved to the next class: top1 100.0" in finding.detail


def test_every_fault_of_a_report_is_named(tmp_path):
    said = examine(Subject(Misreporting, folder=tmp_path / "a"), kit.metrics_are_as_declared).detail
    assert "top1 nan is outside 0 to 100 percent" in said
    assert "top2 100.5 is outside 0 to 100 percent" in said
    assert "top2 is taken over 0 samples" in said
    said = examine(Subject(Silent, folder=tmp_path / "b"), kit.metrics_are_as_declared).detail
    assert "top1 is missing without a reason" in said
    assert "the primary metric top1 is missing" in said
    assert "not finite JSON data" in said


def test_checks_are_skipped_by_what_a_task_declares(tmp_path):
    class Tuned(Shifting):
        trains_encoder = True

    class OfScenes(Toy):
        needs = frozenset({"boxes", "depth"})

    class OfImages(Toy):
        needs = frozenset({"images"})

    skipped = {finding.name for finding in check_task(Subject(Tuned, folder=tmp_path)) if finding.passed is None}
    assert skipped == {"frozen_weights_are_unchanged", "batch_size_does_not_matter"}
    findings = check_task(Subject(OfScenes, folder=tmp_path))
    assert {finding.passed for finding in findings} == {None}
    assert findings[0].detail == "it needs boxes, depth, which neither labelled images nor scenes have"
    unlabelled = {
        finding.passed: finding.detail for finding in check_task(Subject(OfImages, folder=tmp_path / "images"))
    }
    assert set(unlabelled) == {None, True}
    assert unlabelled[None] == "it uses no labels"


def test_options_are_checked_before_anything_runs(tmp_path):
    class Strict(Toy):
        Config = TaskConfig

    with pytest.raises(InputError, match=r"unknown key 'tasks\.toy\.k'"):
        Subject(Strict, {"k": 1}, folder=tmp_path)
