"""Monitors of a pretraining: the weights and the fingerprint stay, the record gets the curves."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
import torch

from helpers.two_processes import join, run_in_two
from mimbench import registry
from mimbench.contract import Monitor
from mimbench.engine.hooks import HistoryHook
from mimbench.errors import InputError, RunError
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.monitors import load_monitors
from mimbench.harness.planning.plan import plan
from mimbench.harness.running.monitoring import Watch
from mimbench.recipe.document import parse_assignments

CPU = torch.device("cpu")
TWO = ("pretrain.epochs=2", "pretrain.checkpoint_every=1")
ALL = ("knn", "linear", "rankme", "effective-rank", "alpha-req", "lidar", "feature-std", "uniformity")
WATCHED = (f"pretrain.monitor={','.join(ALL)}", "pretrain.monitor_images=50")


def weights(bench) -> dict[str, list[str]]:
    """Hashes of encoder and method by fingerprint."""
    cards = [json.loads(path.read_text()) for path in bench.store.root.glob("checkpoints/*/checkpoint.json")]
    return {card["fingerprint"]: sorted(card["sha256"].values()) for card in cards}


@pytest.mark.parametrize("encoder", ["vit", "resnet"])  # the latter has batch norms
def test_a_watched_pretraining_has_the_weights_and_fingerprint_of_one_that_is_not(bench, encoder):
    settings = (*TWO, f"encoder.name={encoder}")
    (alone,) = bench.run(settings=settings).records
    expected = weights(bench)
    bench.moves("watched")
    (record,) = bench.run(settings=(*settings, *WATCHED, "pretrain.monitor_steps=3")).records
    assert weights(bench) == expected
    assert record.id == alone.id
    assert set(record.checkpoint.monitored) == set(ALL)
    for name, points in record.checkpoint.monitored.items():
        assert [at for at, _ in points] == [0, 1.5, 2], name
    assert record.checkpoint.monitor_seconds > 0
    assert alone.checkpoint.monitored == {}
    assert "after 2 epochs:  knn" in bench.said


def test_an_interrupted_one_goes_on_to_the_same_weights_and_curves(bench, monkeypatch):
    (whole,) = bench.run(settings=(*TWO, *WATCHED)).records
    expected = weights(bench)
    bench.moves("stopped")
    begins = HistoryHook.before_train_epoch

    def stops(hook, runner):
        if runner.epoch == 1:
            raise RunError("stopped")
        begins(hook, runner)

    with monkeypatch.context() as patch:
        patch.setattr(HistoryHook, "before_train_epoch", stops)
        assert bench.run(settings=(*TWO, *WATCHED)).failures
    (record,) = bench.run(settings=(*TWO, *WATCHED)).records
    assert weights(bench) == expected
    assert record.checkpoint.monitored == whole.checkpoint.monitored


class Width(Monitor):
    """The number of features, as a third party may want to know it."""

    name: ClassVar[str] = "width"

    def measure(self, seen):
        return seen.features.shape[1]


class Failing(Monitor):
    name: ClassVar[str] = "failing"

    def measure(self, seen):
        raise ValueError("no such luck")


def test_a_plugin_s_monitor_is_measured_and_one_that_fails_is_left_out(bench, monkeypatch):
    for monitor in (Width, Failing):
        monkeypatch.setitem(registry.monitors.replacements, monitor.name, monitor)
    (record,) = bench.run(settings=("pretrain.monitor=width,failing",)).records
    assert record.checkpoint.monitored == {"width": [(0, 32), (1, 32)]}
    assert bench.said.count("monitor 'failing' is left out where it fails; the training goes on: ValueError: no") == 1


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["pretrain.monitor=rankmi"], "pretrain.monitor: unknown monitor 'rankmi'; did you mean 'rankme'"),
        (["pretrain.monitor=knn", "pretrain.monitor_every=2", "pretrain.monitor_steps=3"], "both set: set only one"),
        (["pretrain.monitor=knn", "data.train_limit=8", "pretrain.batch_size=8"], "need 10 or more training images"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_trained(bench, settings, problem):
    with pytest.raises(InputError, match=problem):
        bench.planned(settings=settings)


def test_a_monitor_that_needs_labels_is_refused_without_them(bench):
    _, (cell,) = bench.planned(settings=("pretrain.monitor=rankme,knn",))
    data = cell.pretraining.dataset
    data.provides = frozenset({"images"})
    with pytest.raises(InputError, match=r"'knn' needs labels, but dataset 'mnist5k' has none; leave it out"):
        load_monitors(cell.pretraining)


def watch(cache) -> Watch:
    brief = ("pretrain.monitor=knn,lidar", "pretrain.monitor_images=50", "data.train_limit=64")
    settings = {**parse_assignments([*TWO, *brief, "pretrain.batch_size=32"])}
    (cell,) = plan(Request(["simmim"], ["knn"], "smoke", [0], settings), CPU, cache)
    pretraining = cell.pretraining
    method = build_method(pretraining.recipe, 0, pretraining.channels)
    return Watch(load_monitors(pretraining), pretraining, method, CPU, print)


def compare(rank, port, cache, expected, failures):
    join(rank, port)
    values = watch(cache).measure()
    if values != expected:
        failures.put(f"rank {rank}: {values}, not {expected}")


def test_two_processes_measure_what_one_does(cache):
    run_in_two(compare, cache, watch(cache).measure())
