"""The task: the measures of training images, without labels."""

from __future__ import annotations

import pytest
import torch

from helpers.hand_made import ENCODER, HandMade, Labelled, blurred, context
from mimbench.contract import InputError
from mimbench.testing.checks import parametrize_checks
from mimbench.testing.tasks import task_suite
from mimbench_tasks.feature_quality import measures
from mimbench_tasks.feature_quality.task import FeatureQuality

SMALL = {"lidar_images": 10, "lidar_views": 2}


def run(tmp_path, dataset=None, **options):
    task = FeatureQuality(FeatureQuality.Config(**SMALL | options))
    return task.run(ENCODER, dataset or Labelled(60, 5), context(HandMade(blurred), tmp_path))


def test_it_reports_the_measures_of_all_training_images(tmp_path):
    metrics = run(tmp_path).metrics
    features = blurred(Labelled(60, 5).split("train").labels, "train", -1)
    for name in ("rankme", "effective_rank", "alpha_req", "feature_std", "uniformity"):
        assert metrics[name].value == pytest.approx(getattr(measures, name)(features), rel=1e-6), name
        assert metrics[name].n == 60
    assert metrics["lidar"].n == 10
    assert list(metrics) == [metric.name for metric in FeatureQuality.metrics]


def test_fewer_images_are_the_same_for_every_method(tmp_path):
    chosen = run(tmp_path, images=20, pairs_of=12).metrics
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    features = blurred(Labelled(60, 5).split("train").labels, "train", -1)[order[:20]]
    assert chosen["rankme"].value == pytest.approx(measures.rankme(features))
    assert (chosen["rankme"].n, chosen["uniformity"].n) == (20, 12)
    assert chosen["uniformity"].value == pytest.approx(measures.uniformity(features[:12]))


def test_features_without_two_directions_have_no_alpha(tmp_path):
    task = FeatureQuality(FeatureQuality.Config(**SMALL))
    constant = HandMade(lambda labels, which, layer: torch.ones(len(labels), 4))
    result = task.run(ENCODER, Labelled(60, 5), context(constant, tmp_path))
    assert result.metrics["rankme"].value == pytest.approx(task.chance(Labelled(60, 5)), abs=1e-3)
    assert list(result.details["absent"]) == ["alpha_req"]


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="feature-quality needs 10 or more training images; dataset 'labelled' has 8"):
        FeatureQuality(FeatureQuality.Config()).check(ENCODER, Labelled(8, 2))


@parametrize_checks(task_suite(FeatureQuality, SMALL))
def test_it_keeps_its_contract(check):
    check()
