"""Two tasks as plugins, one without training labels and one that trains: both measure what built-in methods learnt."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from plugins.cluster import Cluster, matched
from plugins.one_query_probe import Head, OneQueryProbe

from helpers.refusals import refused
from mimbench.contract import ArraySplit
from mimbench.testing import parametrize_checks, task_suite


@parametrize_checks(task_suite(Cluster))
def test_cluster_passes_the_checks_for_tasks(check):
    check()


@parametrize_checks(task_suite(OneQueryProbe))
def test_one_query_probe_passes_the_checks_for_tasks(check):
    check()


@pytest.mark.usefixtures("registered")
def test_they_measure_methods_and_controls(quick):
    options = ("--recipe", "smoke", "--json", "--set", "tasks.cluster.clusters=12")
    done = quick("run", "--method", "random-init,simmim", "--task", "cluster,one-query-probe", *options)
    assert done.returncode == 0, done.stderr
    records = {(one["method"]["name"], one["task"]["name"]): one for one in json.loads(done.stdout)}
    assert len(records) == 4
    for (_, task), record in records.items():
        first = {"cluster": "accuracy", "one-query-probe": "top1"}[task]
        assert record["metrics"][first]["n"] == 100
        assert 0 < record["metrics"][first]["value"] <= 100
    cluster, probe = (records["simmim", task] for task in ("cluster", "one-query-probe"))
    assert cluster["details"]["clusters"] == 12
    assert cluster["recipe"]["task"]["clusters"] == 12
    assert len(probe["curves"]["loss"]) == 10
    assert probe["curves"]["loss"][-1] < probe["curves"]["loss"][0]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("task", "setting", "words"),
    [
        ("cluster", "task.layer=9", "layer 9 is outside this encoder's 2 layers"),
        ("cluster", "task.clusters=1", "tasks.cluster.clusters = 1: it must be greater than or equal to 2"),
        ("one-query-probe", "task.layer=9", "layer 9 is outside this encoder's 2 layers"),
        ("one-query-probe", "task.train.batch_size=4096", "task.train.batch_size 4096 is more than the 200"),
    ],
)
def test_what_cannot_run_is_refused_while_planning(quick, task, setting, words):
    refused(quick("run", "--method", "simmim", "--task", task, "--recipe", "smoke", "--set", setting), words)


def test_clusters_are_matched_with_classes():
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert matched((labels + 1) % 3, labels) == 100
    assert matched(np.zeros(6, dtype=int), labels) == pytest.approx(100 / 3)
    # Of two clusters that hold one class each and one that is empty, two are matched.
    assert matched(np.array([3, 3, 1, 1, 1, 1]), labels) == pytest.approx(100 * 4 / 6)


def test_chance_of_clustering_is_above_one_in_the_number_of_classes():
    class Two:
        name = "two"

        def split(self, name):
            return ArraySplit(torch.zeros(200, 1, 4, 4, dtype=torch.uint8), torch.arange(200) % 2, ("a", "b"))

    assert 50 < Cluster(Cluster.Config()).chance(Two()) < 56


def test_the_query_attends_over_patches_in_any_order():
    torch.manual_seed(0)
    head, patches = Head(8, 2, 3).eval(), torch.randn(2, 5, 8)
    logits = head(patches)
    assert logits.shape == (2, 3)
    assert torch.allclose(head(patches.flip(1)), logits, atol=1e-6)
    assert not torch.allclose(head(torch.cat((patches[:, :4], patches[:, 4:] + torch.randn(1, 1, 8)), 1)), logits)
