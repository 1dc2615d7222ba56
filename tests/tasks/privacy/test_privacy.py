"""Privacy: measures by hand, the planted truth for each attack, and which images are members."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from helpers.refusals import refused
from mimbench import registry
from mimbench.contract import DataChoice
from mimbench.data.open import open_dataset
from mimbench.data.pipeline.subsets import training_indices
from mimbench.errors import InputError, RunError
from mimbench.report.records.scores import join_scores
from mimbench.testing import audit_suite, parametrize_checks
from mimbench.testing.colours import LabelLog
from mimbench.testing.task_runs import run_task
from mimbench_tasks.privacy import attacks, measures
from mimbench_tasks.privacy.planted import ListingEncoder, StoringMethod
from mimbench_tasks.privacy.pool import find_pool
from mimbench_tasks.privacy.task import Privacy, PrivacyConfig

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
    assert (len(whole.members()), len(whole.non_members()), whole.held_out) == (60, 40, "test split")
    assert [len(whole.codes(copies)) for copies in (0, 1, 4, 16)] == [16, 2, 2, 2]
    assert whole.ids[whole.non_members()].tolist() == list(range(len(train), len(train) + len(test)))

    choice = DataChoice(share=0.5, seed=1)
    half = find_pool(dataset, choice, 1000)
    assert half.held_out == "rest of the train split"
    seen = set(training_indices(train.labels, choice).tolist())
    plain = set(torch.nonzero(train.attributes["code"] == 0).flatten().tolist())
    assert set(half.ids[half.members()]) == seen & plain
    assert set(half.ids[half.non_members()]) == plain - seen
    few = find_pool(dataset, None, 7)
    assert (len(few.members()), len(few.non_members())) == (7, 7)


@pytest.mark.parametrize(
    "choice", [DataChoice(share=0.5, seed=1), DataChoice(plant_count=30, plant_copies=3), DataChoice(share=0.3)]
)
def test_canaries_are_counted_among_the_images_that_the_pretraining_saw(cache, choice):
    dataset = open_dataset("planted-digits", SMALL, cache)
    train, codes = dataset.split("train"), dataset.split("codes")
    pool = find_pool(dataset, choice, 1000)
    seen = train.images[training_indices(train.labels, choice)]
    copies = [int((seen == image).flatten(1).all(1).sum()) for image in codes.images]
    assert sum(copies) > 0
    assert copies != codes.attributes["copies"].tolist(), "declared and real copies differ here"
    assert pool.copies[pool.is_code].tolist() == copies
    assert pool.is_member[pool.is_code].tolist() == [count > 0 for count in copies]
    assert len(pool.codes(0)) == copies.count(0)


def untrained() -> ListingEncoder:
    return ListingEncoder(torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1)), False)


def attack(dataset, folder, encoder=None, **options):
    return run_task(Privacy(PrivacyConfig(**options)), encoder or untrained(), dataset, folder, log=LabelLog()).result


def test_no_image_is_encoded_that_is_not_scored_or_fitted(cache, tmp_path):
    encoded = 0

    class Counting(ListingEncoder):
        def embed(self, images):
            nonlocal encoded
            encoded += len(images)
            return super().embed(images)

    dataset = open_dataset("planted-digits", SMALL, cache)
    attack(dataset, tmp_path, Counting(torch.rand(3, 1, 28, 28), False), attack="features", images=10)
    assert encoded == 10 + 10 + len(dataset.split("codes"))


def test_the_attack_on_features_needs_four_of_each_and_runs_on_four(cache, tmp_path):
    few = open_dataset("planted-digits", {**SMALL, "members": 3}, cache)
    with pytest.raises(InputError, match=r"train split .* has 3 images that are no codes; .* needs 4 or more"):
        Privacy(PrivacyConfig(attack="features")).check(untrained(), few)
    Privacy(PrivacyConfig(attack="alignment")).check(untrained(), few)
    for members, non_members in ((4, 4), (4, 40)):
        enough = open_dataset("planted-digits", {**SMALL, "members": members, "non_members": non_members}, cache)
        assert attack(enough, tmp_path / str(non_members), attack="features").metrics["auc"].n == 2 + non_members // 2


def test_a_share_that_leaves_too_few_is_refused(cache, tmp_path):
    dataset = open_dataset("planted-digits", {**SMALL, "codes": 0, "members": 12}, cache)
    known = DataChoice(share=0.2, content=dataset.fingerprint())
    task = Privacy(PrivacyConfig(attack="features"))
    with pytest.raises(InputError, match=r"2 members and 10 non-members after pretrain.data_share; .* needs 4"):
        run_task(task, untrained(), dataset, tmp_path, log=LabelLog(), pretrained_on=known)


@pytest.mark.parametrize("name", ["features", "alignment"])
def test_features_that_are_not_finite_stop_the_attack(cache, tmp_path, name):
    class Diverged(ListingEncoder):
        def embed(self, images):
            tokens = super().embed(images)
            return torch.where(images.mean((1, 2, 3))[:, None, None, None] > 0, tokens, torch.nan)

    dataset = open_dataset("planted-digits", SMALL, cache)
    with pytest.raises(RunError, match=r"of 122 images get NaN or infinity, .* lower pretrain.base_lr"):
        attack(dataset, tmp_path, Diverged(torch.rand(3, 1, 28, 28), False), attack=name)


def test_whether_members_were_trained_on_is_null_if_it_is_not_known(cache, tmp_path):
    dataset = open_dataset("planted-digits", SMALL, cache)
    choices = {None: None, True: DataChoice(content=dataset.fingerprint()), False: DataChoice(content="other")}
    for known, choice in (*choices.items(), (None, DataChoice())):
        folder = tmp_path / f"{known}-{choice is None}"
        task = Privacy(PrivacyConfig(attack="alignment"))
        ran = run_task(task, untrained(), dataset, folder, log=LabelLog(), pretrained_on=choice)
        assert ran.result.details["is_pretrained_on_them"] is known


def test_a_method_that_mixes_images_is_refused_for_reconstruction():
    mixing = registry.methods.load("mixmim")
    with pytest.raises(InputError, match=r"'mixmim' mixes each image .*; set task.attack to features or alignment"):
        Privacy(PrivacyConfig()).check_method(mixing)
    Privacy(PrivacyConfig(attack="features")).check_method(mixing)
    Privacy(PrivacyConfig()).check_method(registry.methods.load("mae"))


def test_all_images_of_all_batches_get_the_same_masks_and_crops():
    images = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)).repeat(5, 1, 1, 1)
    stored = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    method = StoringMethod(ListingEncoder(stored, False), stored).eval()
    for scorer in (
        attacks.reconstruction(method, 3),
        attacks.alignment(method.encoder, attacks.draw_boxes(4, 0.6), -1, "mean"),
    ):
        scores = torch.cat([scorer(batch) for batch in images.split(2)])
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
    assert "the pretraining saw another dataset" in done.stderr
    (reference,) = json.loads(done.stdout)
    assert reference["details"]["is_pretrained_on_them"] is False
    files = [tmp_path / "runs" / "records" / f"{one['id']}.json" for one in (record, reference)]
    joined = join_scores(files).pivot(index="id", columns="record", values="score")
    assert joined.shape == (60 + 40 + 6 + 16, 2), "scores of both are of the same images"


def test_a_method_that_does_not_reconstruct_is_refused_for_one_attack_only(quick):
    done = quick(*RUN, "--method", "random-init")
    assert done.returncode == 2
    mixing = (*RUN, "--method", "mixmim", "--set", "encoder.name=swin", "--dry-run")
    refused(quick(*(word for word in mixing if word != "--json")), "set task.attack to features or alignment")
    done = quick(
        "run", "--recipe", "smoke", "--method", "random-init", "--task", "privacy", "--set", "task.attack=features"
    )
    assert done.returncode == 0, done.stderr
