"""Fairness: measures by hand, the planted truth, and what is refused."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from helpers.refusals import refused
from mimbench.testing import audit_suite, parametrize_checks
from mimbench_tasks.fairness import measures
from mimbench_tasks.fairness.task import Fairness

LABELS = np.array([0, 0, 1, 1] * 2)
GROUPS = np.repeat([0, 1], 4)
ANSWERS = np.array([0, 0, 1, 1, 0, 1, 1, 1])  # one image of class 0 of group 1 is taken for class 1


@parametrize_checks(audit_suite(Fairness))
def test_it_passes_the_checks_for_audits(check):
    check()


def test_metrics_are_those_of_a_sum_by_hand():
    metrics, intervals = measures.measure(ANSWERS, LABELS, GROUPS, 0, seed=0)
    assert {name: measured.value for name, measured in metrics.items()} == {
        "difference": 25,
        "gap": 25,
        "worst_group": 75,
        "group_mean": 87.5,
        "equalised_odds": 50,
    }
    assert (metrics["worst_group"].n, metrics["gap"].n) == (4, 8)
    assert set(intervals) == set(metrics)
    swapped, _ = measures.measure(ANSWERS, LABELS, GROUPS, 1, seed=0)
    assert swapped["difference"].value == -25, "it has a sign"


def test_equalised_odds_with_two_classes_are_those_of_either():
    assert measures.equalised_odds(ANSWERS, LABELS, GROUPS) == measures.equalised_odds(1 - ANSWERS, 1 - LABELS, GROUPS)
    assert measures.equalised_odds(LABELS, LABELS, GROUPS) == 0
    assert measures.equalised_odds(np.where(GROUPS, 1 - LABELS, LABELS), LABELS, GROUPS) == 100


def test_equalised_odds_of_counts_are_those_of_the_definition():
    """Rates by loops over classes and groups; one group lacks a class, and one class has no image."""
    rng = np.random.RandomState(0)
    answers, labels, groups = rng.randint(0, 6, 400), rng.choice([0, 1, 2, 3, 5], 400), rng.randint(0, 3, 400)
    groups[labels == 5] = 1
    of_classes = []
    for label in (0, 1, 2, 3, 5):
        spreads = []
        for kind in (labels == label, labels != label):
            chosen = [answers[kind & (groups == group)] for group in range(3)]
            rates = [np.mean(some == label) for some in chosen if len(some)]
            spreads.append(max(rates) - min(rates))
        of_classes.append(max(spreads))
    assert measures.equalised_odds(answers, labels, groups) == pytest.approx(100 * np.mean(of_classes))


def test_chance_alone_makes_equalised_odds_and_a_real_difference_is_above_it():
    rng = np.random.RandomState(0)
    labels, groups = rng.randint(0, 5, 600), rng.randint(0, 2, 600)
    same = np.where(rng.rand(600) < 0.6, labels, rng.randint(0, 5, 600))
    by_chance = measures.equalised_odds_if_equal(same, labels, groups, 0)
    assert measures.equalised_odds(same, labels, groups) == pytest.approx(by_chance["mean"], abs=3 * by_chance["std"])
    assert by_chance["mean"] > by_chance["std"] > 0
    worse = np.where((groups == 1) & (rng.rand(600) < 0.5), (labels + 1) % 5, same)
    by_chance = measures.equalised_odds_if_equal(worse, labels, groups, 0)
    assert measures.equalised_odds(worse, labels, groups) > by_chance["mean"] + 5 * by_chance["std"]


def test_a_thousand_classes_are_measured_in_seconds():
    """1,000 draws of 5,000 images took more than ten minutes when each class was compared with each image."""
    rng = np.random.RandomState(0)
    labels, groups = rng.randint(0, 1000, 5000), rng.randint(0, 2, 5000)
    start = time.process_time()
    measures.measure(np.where(rng.rand(5000) < 0.5, labels, 0), labels, groups, 0, seed=0)
    assert time.process_time() - start < 20


def test_equal_errors_in_all_groups_are_fair_and_unequal_kinds_of_errors_are_not():
    labels = np.array([0, 0, 1, 1] * 2)
    missed = np.array([0, 1, 1, 1, 0, 0, 1, 0])  # one error per group, of another kind in each
    metrics, _ = measures.measure(missed, labels, GROUPS, 0, seed=0)
    assert metrics["gap"].value == 0
    assert metrics["equalised_odds"].value == 50


def test_more_groups_than_two_are_compared_with_the_mean_of_the_others():
    accuracies = {0: 90.0, 1: 60.0, 2: 80.0}
    assert measures.difference(accuracies, 0) == 20
    assert measures.difference(accuracies, 1) == -25


def test_values_per_image_have_the_difference_as_mean_and_its_spread():
    rng = np.random.RandomState(0)
    groups = np.repeat([0, 1, 2], [300, 200, 100])
    hits = rng.rand(600) < np.array([0.9, 0.7, 0.6])[groups]
    values = measures.difference_by_sample(hits, groups, 0)
    accuracies = measures.group_accuracies(hits, groups)
    assert values.mean() == pytest.approx(measures.difference(accuracies, 0))
    shares = [value / 100 for value in accuracies.values()]
    parts = [share * (1 - share) / count for share, count in zip(shares, (300, 200, 100), strict=True)]
    error = 100 * (parts[0] + (parts[1] + parts[2]) / 4) ** 0.5
    assert values.std() / 600**0.5 == pytest.approx(error, rel=1e-6)


RUN = ("run", "--recipe", "smoke", "--method", "random-init", "--task", "fairness")
SMALL = ("--set", "task.data.train_limit=200", "--set", "task.data.test_limit=100")


@pytest.mark.e2e
def test_a_record_has_each_group_and_its_intervals(quick):
    done = quick(*RUN, *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["dataset"]["name"] == "unequal-digits"
    assert [(group["test"], group["train"]) for group in record["details"]["groups"]] == [(50, 100), (50, 100)]
    assert set(record["details"]["equalised_odds_if_equal"]) == {"mean", "std"}
    low, high = record["details"]["intervals"]["difference"]
    assert low <= record["metrics"]["difference"]["value"] <= high


def test_what_has_no_groups_is_refused_in_one_line(quick):
    refused(quick(*RUN, "--set", "task.dataset=digits"), "attributes")
    refused(quick(*RUN, "--set", "task.attribute=colour"), "task.attribute is colour; set it to one of")
    refused(quick(*RUN, "--set", "task.reference=7"), "no test image is of the reference group 7")
