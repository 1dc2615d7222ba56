"""The checks of tasks: every built-in task passes them, and each fails on a task that is wrong in its way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from plugins.cluster import Cluster
from torch import nn

from mimbench import registry
from mimbench.contract import Audit, Measured, Metric, StepOutput, Task, TaskConfig, TaskResult, TrainConfig
from mimbench.data import training_loader
from mimbench.errors import InputError
from mimbench.recipe.document import read
from mimbench.recipe.resolve import resolve
from mimbench.testing.audits import check_audit
from mimbench.testing.tasks import TASK_CHECKS, check_task, task_suite
from mimbench_tasks.linear_probe import LinearProbe

BUILT_IN = [name for name in registry.tasks.names() if registry.tasks.owner(name).startswith("mimbench ")]
ABOUT_LABELS = {"leaked_labels_score_near_best", "shuffled_labels_give_chance", "only_scoring_reads_test_labels"}
ABOUT_FROZEN_WEIGHTS = {"frozen_weights_are_unchanged", "batch_size_does_not_matter"}


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Each built-in task with the settings that differ from the preset `check`: every protocol of linear probing."""
    fitting = {"dinov2": {"task.blocks": [1]}}  # the encoder has two blocks
    probes = [("linear-probe", {"task.protocol": one, **fitting.get(one, {})}) for one in LinearProbe.protocols]
    return [*((name, {}) for name in BUILT_IN if name != "linear-probe"), *probes]


@pytest.mark.parametrize(("name", "settings"), cases(), ids=str)
def test_built_in_tasks_pass(name, settings, tmp_path):
    task = resolve("check", read("check"), "simmim", settings, name).task(name)
    is_audit = isinstance(task, Audit)
    results = (check_audit if is_audit else check_task)(type(task), task.config, folder=tmp_path)
    assert [result for result in results if result.status == "failed"] == []
    assert {result.name for result in results if result.status == "waived"} == set(task.waivers)
    allowed = ABOUT_FROZEN_WEIGHTS if task.trains_encoder else set()
    allowed |= set() if is_audit or task.needs - {"images"} else ABOUT_LABELS
    assert {result.name for result in results if result.status == "skipped"} == allowed


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


class Strict(Toy):
    """States a chance that is too high."""

    def chance(self, dataset):
        return 50.0


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
    """Learns the test images by heart, with labels, but reads these late."""

    def run(self, encoder, dataset, context):
        test = dataset.split("test")
        test_x = context.features(test, "test", layer=-1, pooling="mean")
        context.features(dataset.split("train"), "train", layer=-1, pooling="mean")
        nearest = torch.cdist(test_x, test_x).argmin(1)
        return self.scored(torch.eye(6)[test.labels[nearest]], test.labels)


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


class Unshared(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, generator):
        return StepOutput(self.weight + torch.rand((), generator=generator))


class Careless(Toy):
    """Trains a model for which each process draws its own numbers, and says that they do not matter."""

    def depends_on_processes(self, encoder, dataset):
        return ""

    def run(self, encoder, dataset, context):
        train, config = dataset.split("train"), TrainConfig(epochs=1, batch_size=60, base_lr=0.1)
        loader = training_loader(train, context.input, batch_size=60, seed=context.seed, device=context.device)
        context.fit(Unshared(), loader, config, label="careless", images_per_epoch=len(train))
        return super().run(encoder, dataset, context)


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


class NoMetrics(Toy):
    metrics: ClassVar = ()


class OddConfig(TaskConfig):
    weights: Path | None = None

    def shaping(self):
        return {**super().shaping(), "scale": {1.0}}


class Odd(Toy):
    Config = OddConfig


class ByNameConfig(OddConfig):
    def shaping(self):
        return {"weights": str(self.weights)}


class ByName(Toy):
    Config = ByNameConfig


WRONG: dict[str, list[tuple[type[Task], str]]] = {
    "metadata_is_complete": [(NoMetrics, "declares no `metrics`")],
    "options_are_plain": [(Odd, "JSON cannot hold")],
    "files_count_by_content": [(ByName, "'weights' enters the fingerprint by the name of its file")],
    "metrics_are_as_declared": [(Misreporting, "top3 is not declared")],
    "leaked_labels_score_near_best": [(Deaf, "top1 16.7 percent, chance 16.7, n 180")],
    "only_scoring_reads_test_labels": [
        (Peeking, "read before a request for features"),
        (Learning, "test labels in random order: top1 100.0"),
        (Boastful, "test labels in random order: top1 100.0"),
    ],
    "shuffled_labels_give_chance": [(Strict, "chance 50.0")],
    "frozen_weights_are_unchanged": [(Shifting, "changed: body.norm.weight")],
    "batch_size_does_not_matter": [(Normalising, "batches of 64 and of 7: top1")],
    "equal_seeds_give_equal_results": [(Guessing, "differing: metrics")],
    "training_depends_on_processes_as_declared": [(Careless, "Unshared: each process draws its own numbers")],
}


def test_each_check_has_a_wrong_task():
    assert set(WRONG) == {one.name for one in TASK_CHECKS}


@pytest.mark.parametrize("task", [Toy, Cluster])
def test_an_honest_task_passes(task, tmp_path):
    results = check_task(task, folder=tmp_path)
    assert [result.name for result in results] == [one.name for one in TASK_CHECKS]
    assert {result.status for result in results} == {"passed"}, results


@pytest.mark.parametrize(
    ("name", "task", "text"),
    [(name, task, text) for name, wrong in WRONG.items() for task, text in wrong],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_wrong_task_fails_its_check_and_no_other(name, task, text, tmp_path):
    failures = {r.name: r.message for r in check_task(task, folder=tmp_path) if r.status == "failed"}
    assert set(failures) == {name}
    assert text in failures[name]
    assert "; " in failures[name]
    assert "test_tasks.py:" in failures[name]


def test_every_fault_of_a_report_is_named(tmp_path):
    message = task_suite(Misreporting, folder=tmp_path / "a").result("metrics_are_as_declared").message
    assert "top1 nan is outside 0 to 100 percent" in message
    assert "top2 100.5 is outside 0 to 100 percent" in message
    assert "top2 is taken over 0 samples" in message
    message = task_suite(Silent, folder=tmp_path / "b").result("metrics_are_as_declared").message
    assert "top1 is missing without a reason" in message
    assert "the primary metric top1 is missing" in message
    assert "not finite JSON data" in message


def test_checks_are_skipped_by_what_a_task_declares(tmp_path):
    class Tuned(Shifting):
        trains_encoder = True

    class OfScenes(Toy):
        needs = frozenset({"boxes", "depth"})

    class OfImages(Toy):
        needs = frozenset({"images"})

    def skipped(task, folder):
        results = check_task(task, folder=tmp_path / folder)
        assert {result.status for result in results} == {"passed", "skipped"}
        return {result.name: result.message for result in results if result.status == "skipped"}

    assert set(skipped(Tuned, "a")) == ABOUT_FROZEN_WEIGHTS
    of_scenes = skipped(OfScenes, "b")
    assert set(of_scenes.values()) >= {
        "it needs boxes, depth, which neither labelled images nor scenes nor images with depth have"
    }
    assert "metrics_are_as_declared" in of_scenes
    assert skipped(OfImages, "c") == dict.fromkeys(ABOUT_LABELS, "it uses no labels")


def test_options_are_checked_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match=r"unknown key 'tasks\.toy\.k'"):
        task_suite(Toy, {"k": 1}, folder=tmp_path)


def test_a_temporary_folder_is_used_without_one():
    assert task_suite(Toy).result("metrics_are_as_declared").status == "passed"
