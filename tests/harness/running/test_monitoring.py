"""Monitors of a pretraining: the weights and the fingerprint stay, the record gets the curves."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
import torch

from helpers.two_processes import join, run_in_two
from mimbench import registry
from mimbench.contract import Monitor
from mimbench.encoders.vit import ViT
from mimbench.engine.hooks import HistoryHook
from mimbench.errors import InputError, RunError
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.monitors import load_monitors
from mimbench.harness.planning.plan import plan
from mimbench.harness.running.monitoring import EncoderMonitoring
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


def monitoring(cache, *settings) -> EncoderMonitoring:
    brief = ("pretrain.monitor=knn,lidar", "pretrain.monitor_images=50", "data.train_limit=64")
    settings = {**parse_assignments([*TWO, *brief, "pretrain.batch_size=32", *settings])}
    (cell,) = plan(Request(["simmim"], ["knn"], "smoke", [0], settings), CPU, cache)
    pretraining = cell.pretraining
    method = build_method(pretraining.recipe, 0, pretraining.channels)
    return EncoderMonitoring(load_monitors(pretraining), pretraining, method, CPU, print)


def test_images_are_encoded_in_micro_batches_of_the_training(cache, monkeypatch):
    counts = []
    encode = ViT.features

    def noted(encoder, images, *arguments):
        assert not torch.is_grad_enabled()
        counts.append(len(images))
        return encode(encoder, images, *arguments)

    expected = monitoring(cache).measure()
    monkeypatch.setattr(ViT, "features", noted)
    with torch.no_grad():
        values = monitoring(cache, "pretrain.accumulate=4").measure()
    assert max(counts) == 8
    assert values == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
        (None, "its features are not finite"),
    ],
)
def test_images_that_cannot_be_encoded_leave_out_monitors_and_nothing_else(bench, monkeypatch, problem, said):
    settings = (*TWO, *WATCHED)
    bench.run(settings=settings)
    expected = weights(bench)
    bench.moves("failing")
    encode, take = EncoderMonitoring._pooled, EncoderMonitoring._current_encoder
    measured = []

    def note(monitors):
        measured.append(True)
        return take(monitors)

    def fail(monitors, encoder, images):
        if len(measured) == 1:  # before the first step
            return encode(monitors, encoder, images)
        if problem:
            raise problem
        return torch.full((len(images), encoder.embed_dim), torch.nan)

    monkeypatch.setattr(EncoderMonitoring, "_current_encoder", note)
    monkeypatch.setattr(EncoderMonitoring, "_pooled", fail)
    (record,) = bench.run(settings=settings).records
    assert weights(bench) == expected
    assert {name: len(points) for name, points in record.checkpoint.monitored.items()} == dict.fromkeys(ALL, 1)
    assert len(measured) == 2  # and not again after the second epoch
    line = f"monitors are left out from here on; the training goes on: cannot encode images: {said}"
    assert bench.said.count(line) == 1


def compare(rank, port, cache, expected, failures):
    join(rank, port)
    values = monitoring(cache).measure()
    if values != expected:
        failures.put(f"rank {rank}: {values}, not {expected}")


def test_two_processes_measure_what_one_does(cache):
    run_in_two(compare, cache, monitoring(cache).measure())
