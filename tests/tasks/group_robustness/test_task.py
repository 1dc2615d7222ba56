"""Group robustness: metrics by hand, a balanced head that needs no shortcut."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.refusals import refused
from mimbench_tasks.group_robustness.balanced_head import balanced_answers
from mimbench_tasks.group_robustness.groups import Groups, aligned_attributes, describe_groups, measure_groups

SEEN = Groups(np.array([0] * 10 + [1] * 10), np.array([0] * 9 + [1] + [1] * 8 + [0] * 2))
SCORED = Groups(np.repeat([0, 1], 4), np.tile([0, 0, 1, 1], 2))


def test_metrics_are_those_of_a_sum_by_hand():
    hits = np.array([1, 1, 1, 0, 0, 0, 1, 1], bool)  # groups (0, 0), (0, 1), (1, 0), (1, 1): 100, 50, 0, 100 percent
    metrics = measure_groups(hits, SCORED, SEEN)
    assert metrics["reliance"].value == pytest.approx(((100 - 50) + (100 - 0)) / 2)
    assert metrics["worst_group"].value == 0
    assert metrics["worst_group"].n == 2
    assert metrics["gap"].value == 100
    assert metrics["group_mean"].value == pytest.approx(62.5)
    assert metrics["average"].value == pytest.approx((9 * 100 + 1 * 50 + 2 * 0 + 8 * 100) / 20)
    assert [group["is_aligned"] for group in describe_groups(hits, SCORED, SEEN)] == [True, False, False, True]


def test_samples_of_the_group_mean_have_it_as_their_mean():
    hits = np.array([1, 1, 1, 0, 0, 0, 1, 1], bool)[[0, 1, 2, 3, 4, 6, 7]]
    scored = Groups(SCORED.labels[[0, 1, 2, 3, 4, 6, 7]], SCORED.attribute[[0, 1, 2, 3, 4, 6, 7]])
    samples = scored.by_group(hits)
    of_groups = [samples.values[samples.groups == group].mean() for group in range(4)]
    assert 100 * np.mean(of_groups) == pytest.approx(measure_groups(hits, scored, SEEN)["group_mean"].value)


def test_a_classifier_of_the_attribute_relies_on_it_alone():
    metrics = measure_groups(SCORED.attribute == SCORED.labels, SCORED, SEEN)
    assert metrics["reliance"].value == 100
    assert metrics["average"].value == pytest.approx(100 * 17 / 20)  # the training images' correlation
    right = measure_groups(np.ones(8, bool), SCORED, SEEN)
    assert (right["reliance"].value, right["worst_group"].value, right["average"].value) == (0, 100, 100)


def test_an_attribute_that_is_frequent_everywhere_is_aligned_with_the_class_that_has_more_of_it():
    """As in CelebA: most persons of either hair colour are women, but nearly all blond ones are."""
    seen = Groups(np.repeat([0, 1], 100), np.array([0] * 60 + [1] * 40 + [0] * 95 + [1] * 5))
    assert aligned_attributes(seen) == {0: 1, 1: 0}


def test_the_balanced_head_reads_the_class_and_not_the_attribute():
    rng = np.random.RandomState(0)

    def draw(count):
        groups = Groups(rng.randint(0, 3, count), rng.randint(0, 2, count))
        x = rng.normal(0, 1, (count, 6))
        x[:, :3] += 4 * np.eye(3)[groups.labels]
        x[:, 3] += 8 * groups.attribute
        return x, groups

    (x, groups), (unseen, scored) = draw(400), draw(300)
    answers, strength = balanced_answers(x, groups, unseen, 5, seed=0)
    metrics = measure_groups(answers == scored.labels, scored, groups)
    assert metrics["worst_group"].value > 90
    assert strength in (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
    again, _ = balanced_answers(x, groups, unseen, 5, seed=0)
    assert (again == answers).all()


def test_a_dataset_without_attributes_is_refused_in_one_line(quick):
    run = ["run", "--method", "simmim", "--task", "group-robustness", "--recipe", "smoke"]
    refused(quick(*run, "--set", "task.dataset=digits"), "attributes")
    refused(quick(*run, "--set", "task.attribute=colour"), "task.attribute is colour; set it to one of")
