"""Privacy: measures by hand, the planted truth for each attack, and which images are members."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from mimbench.contract import DataChoice
from mimbench.data.open import open_dataset
from mimbench.data.pipeline.subsets import training_indices
from mimbench.report.records.scores import join_scores
from mimbench.testing import audit_suite, parametrize_checks
from mimbench_tasks.privacy import attacks, measures
from mimbench_tasks.privacy.planted import ListingEncoder, StoringMethod
from mimbench_tasks.privacy.pool import find_pool
from mimbench_tasks.privacy.task import Privacy

SMALL = {"members": 60, "non_members": 40, "codes": 2, "unseen_codes": 16}


@parametrize_checks(audit_suite(Privacy, {"masks": 4}))
def test_the_attack_by_reconstruction_finds_what_a_method_stores(check):
    check()


@parametrize_checks(audit_suite(Privacy, {"attack": "features"}))
def test_the_attack_on_features_finds_a_list_in_an_encoder(check):
    check()


@parametrize_checks(audit_suite(Privacy, {"attack": "alignment", "crops": 4}))
def test_the_attack_by_alignment_finds_features_that_do_not_change(check):
    check()


def test_auc_counts_ties_half_and_keeps_its_sign():
    assert measures.auc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 100
    assert measures.auc(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 0, "a wrong sign is not turned round"
    assert measures.auc(np.array([1.0, 2.0]), np.array([1.0, 1.0])) == 75
    assert measures.auc(np.ones(5), np.ones(7)) == 50


def test_auc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.RandomState(0)
    members, others = rng.normal(0.4, 1, 150).round(1), rng.normal(0, 1, 90).round(1)
    y, scores = np.repeat([1, 0], [150, 90]), np.concatenate((members, others))
    assert measures.auc(members, others) == pytest.approx(100 * roc_auc_score(y, scores))


def test_rates_are_those_of_thresholds_that_can_be_chosen():
    members, others = np.array([9.0, 8, 3, 1]), np.array([8.5, 2, 2, 0])
    assert measures.tpr_at(members, others, 0.0) == 25
    assert measures.tpr_at(members, others, 0.25) == 75
    assert measures.tpr_at(np.ones(4), np.ones(4), 0.5) == 0, "one threshold has all members and all others above it"
    assert measures.advantage(members, others) == 50
    assert not measures.is_measurable(0.01, 999)
    assert measures.is_measurable(0.01, 1000)


def test_intervals_hold_the_score_and_a_rate_without_enough_others_is_left_out():
    rng = np.random.RandomState(0)
    metrics, intervals = measures.separation(
        rng.normal(1, 1, 300), rng.normal(0, 1, 1000), {"one": 0.01, "rare": 0.001}, seed=0
    )
    assert set(metrics) == set(intervals) == {"auc", "advantage", "one"}
    for name, measured in metrics.items():
        low, high = intervals[name]
        assert low < measured.value < high
    assert metrics["auc"].value == pytest.approx(76, abs=4)  # of two normal distributions one deviation apart


def test_exposure_is_in_bits_of_the_rank():
    unseen = np.arange(255.0)
    high, median, low = measures.exposures(np.array([1000.0, 127.0, -1.0]), unseen)
    assert high == pytest.approx(8)
    assert median == pytest.approx(8 - math.log2(1 + 127 + 0.5))
    assert low == pytest.approx(0)
    assert measures.unstored_exposure(10**5) == pytest.approx(1 / math.log(2), abs=1e-3)
    drawn = measures.exposures(np.random.RandomState(0).rand(20_000), np.random.RandomState(1).rand(256))
    assert drawn.mean() == pytest.approx(measures.unstored_exposure(256), abs=0.1)


def test_members_are_what_the_pretraining_saw(cache):
    dataset = open_dataset("planted-digits", SMALL, cache)
    train, test = dataset.split("train"), dataset.split("test")
    whole = find_pool(dataset, None, 1000)
    assert (len(whole.members()), len(whole.others()), whole.held_out) == (60, 40, "test split")
    assert [len(whole.canaries(copies)) for copies in (0, 1, 4, 16)] == [16, 2, 2, 2]
    assert whole.ids[whole.others()].tolist() == list(range(len(train), len(train) + len(test)))

    choice = DataChoice(share=0.5, seed=1)
    half = find_pool(dataset, choice, 1000)
    assert half.held_out == "rest of the train split"
    seen = set(training_indices(train.labels, choice).tolist())
    plain = set(torch.nonzero(train.attributes["code"] == 0).flatten().tolist())
    assert set(half.ids[half.members()]) == seen & plain
    assert set(half.ids[half.others()]) == plain - seen
    few = find_pool(dataset, None, 7)
    assert (len(few.members()), len(few.others())) == (7, 7)


def test_all_images_get_the_same_masks_and_crops():
    images = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)).repeat(5, 1, 1, 1)
    stored = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    method = StoringMethod(ListingEncoder(stored, False), stored).eval()
    for scorer in (
        attacks.reconstruction(method, 3),
        attacks.alignment(method.encoder, attacks.draw_boxes(4, 0.6), -1, "mean"),
    ):
        scores = scorer(images)
        assert torch.allclose(scores, scores[:1].expand(5), atol=1e-6)
        assert scores.std() < 1e-6 < scores.abs().min()


def test_every_canary_that_is_stored_is_fully_exposed(cache):
    dataset = open_dataset("planted-digits", SMALL, cache)
    codes = dataset.split("codes")
    planted = codes.images[codes.attributes["copies"] > 0].float()
    scorer = attacks.reconstruction(StoringMethod(ListingEncoder(planted, False), planted).eval(), 4)
    scores = scorer(codes.images.float() / 255).numpy()
    copies = codes.attributes["copies"].numpy()
    assert measures.exposures(scores[copies > 0], scores[copies == 0]) == pytest.approx(math.log2(17))


RUN = ("run", "--recipe", "smoke", "--json", "--task", "privacy", "--set", "task.masks=2")
PLANTED = [word for name, value in SMALL.items() for word in ("--set", f"data.{name}={value}")]


@pytest.mark.e2e
def test_a_training_exposes_the_canaries_that_it_sees_often(quick):
    """44 images, 150 times: two canaries are among them 16 times each, two once."""
    few = ("members=10", "non_members=20", "codes=2", "copies=[1,16]", "unseen_codes=63")
    data = [word for setting in few for word in ("--set", f"data.{setting}")]
    training = ("pretrain.epochs=150", "pretrain.checkpoint_every=150", "pretrain.batch_size=22")
    training += ("input.crop_scale=[1.0,1.0]", "method.norm_pixels=false")
    trained = [word for setting in training for word in ("--set", setting)]
    attack = ("run", "--recipe", "smoke", "--json", "--method", "mae", "--task", "privacy")
    done = quick(*attack, "--set", "data.name=planted-digits", *data, *trained, "--vary", "pretrain.at_epoch=0,150")
    assert done.returncode == 0, done.stderr
    untrained, after = (record["metrics"]["exposure_16"]["value"] for record in json.loads(done.stdout))
    assert after == 6 > 4 > untrained, "all canaries of 16 copies rank above the 63 unseen ones"


@pytest.mark.e2e
def test_a_pretrained_method_is_attacked_and_a_reference_is_recognised(quick, tmp_path):
    planted = ("--method", "mae", "--set", "data.name=planted-digits", *PLANTED)
    done = quick(*RUN, *planted)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["details"]["is_pretrained_on_them"] is True
    assert set(record["metrics"]) == {"auc", "advantage", "exposure_1", "exposure_4", "exposure_16"}
    assert set(record["details"]["absent"]) == {"tpr_at_1", "tpr_at_0_1"}

    other = ("--set", "data.reference=true", "--set", "task.data.reference=false")
    done = quick(*RUN, *planted, *other)
    assert done.returncode == 0, done.stderr
    assert "the pretraining saw other images than these" in done.stderr
    (reference,) = json.loads(done.stdout)
    assert reference["details"]["is_pretrained_on_them"] is False
    files = [tmp_path / "runs" / "records" / f"{one['id']}.json" for one in (record, reference)]
    joined = join_scores(files).pivot(index="id", columns="record", values="score")
    assert joined.shape == (60 + 40 + 6 + 16, 2), "scores of both are of the same images"


def test_a_method_that_does_not_reconstruct_is_refused_for_one_attack_only(quick):
    done = quick(*RUN, "--method", "random-init")
    assert done.returncode == 2
    done = quick(
        "run", "--recipe", "smoke", "--method", "random-init", "--task", "privacy", "--set", "task.attack=features"
    )
    assert done.returncode == 0, done.stderr
