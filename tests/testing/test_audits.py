"""The checks of audits: an honest audit passes them all, and each fails on an audit that is wrong in its way."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from mimbench.api import (
    ArraySplit,
    Audit,
    AuditInput,
    DataConfig,
    Dataset,
    Measured,
    Metric,
    TaskConfig,
    TaskResult,
    labelled_split,
)
from mimbench.testing import audit_suite, check_audit
from mimbench.testing.task_runs import build_untrained

SIDE = 8


class Groups(Dataset):
    """Noise of 8 x 8 px in two groups of equal size; the second is brighter by `strength` levels of 255."""

    name, channels = "groups", 1

    def __init__(self, strength, seed, folder):
        super().__init__(DataConfig(), folder)
        self.splits, self.content = {}, f"groups-{strength}-{seed}"
        for number, name in enumerate(("train", "test")):
            generator = torch.Generator().manual_seed(2 * seed + number)
            groups = torch.randperm(200, generator=generator) % 2
            noise = torch.randint(0, 128, (200, 1, SIDE, SIDE), generator=generator)
            images = (noise + strength * groups[:, None, None, None]).to(torch.uint8)
            self.splits[name] = ArraySplit(images, groups, ("dark", "bright"), {"group": groups})

    def fingerprint(self):
        return self.content

    def split(self, name):
        return self.splits[name]


class Bias(Audit):
    """How well the brightness of an image shows its group: accuracy of the nearest mean."""

    name, version = "bias", "1"
    metrics: ClassVar = (Metric("accuracy", "percent", 0.0, 100.0),)
    Config = TaskConfig
    doses = (0, 3, 9)

    def plant(self, dose, seed, folder):
        return AuditInput(Groups(self.strength(dose), seed, folder))

    def strength(self, dose):
        return int(dose)

    def oracle(self, seed, folder):
        return AuditInput(Groups(127, seed, folder))

    def run(self, encoder, dataset, context):
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        (bright, groups), (test_bright, test_groups) = (
            (split.images.float().mean((1, 2, 3)), split.attributes["group"]) for split in (train, test)
        )
        means = torch.stack([bright[groups == group].mean() for group in (0, 1)])
        prediction = (test_bright[:, None] - means).abs().argmin(1)
        return self.scored(prediction == test_groups, encoder)

    def scored(self, hits, encoder):
        return TaskResult({"accuracy": Measured(100 * float(hits.float().mean()), len(hits))})

    def chance(self, dataset):
        return 50.0


class OneDose(Bias):
    doses = (3, 9)


class NoRise(Bias):
    """Its highest dose is the weakest."""

    def strength(self, dose):
        return {0: 0, 3: 9, 9: 2}[dose]


class Blind(Bias):
    """It misses a difference that is plain to see."""

    def oracle(self, seed, folder):
        return self.plant(9, seed, folder)


class Unequal(Bias):
    """Its groups differ before anything is planted, as if members were cropped in another way."""

    def strength(self, dose):
        return int(dose) + 2


class WrongChance(Bias):
    def chance(self, dataset):
        return 45.0


class AtTheEnd(Bias):
    """Its chance is the end of the range that an effect moves the score to."""

    def chance(self, dataset):
        return 100.0


class Undeclared(Bias):
    def scored(self, hits, encoder):
        return TaskResult({**super().scored(hits, encoder).metrics, "extra": Measured(1.0, 1)})


class Changing(Bias):
    def scored(self, hits, encoder):
        next(encoder.parameters()).data += 1
        return super().scored(hits, encoder)


class Random(Bias):
    def scored(self, hits, encoder):
        return TaskResult(super().scored(hits, encoder).metrics, details={"draw": float(torch.rand(()))})


class Sized(Bias):
    """It cannot run on another encoder than its own."""

    def plant(self, dose, seed, folder):
        encoder = build_untrained(SIDE, 1, seed)
        encoder.is_planted = True
        return AuditInput(Groups(9, seed, folder), encoder)

    oracle = plant

    def scored(self, hits, encoder):
        assert encoder.is_planted, "no planted encoder"
        return super().scored(hits, encoder)


def test_an_honest_audit_passes_and_shows_what_was_measured(tmp_path):
    results = {result.name: result for result in check_audit(Bias, folder=tmp_path)}
    assert {result.status for result in results.values()} == {"passed"}, results
    assert results["score_rises_with_the_dose"].message.startswith("accuracy by dose: ")
    assert results["oracle_scores_at_the_end"].message == "accuracy 100.0 percent, chance 50.0, n 200"
    assert "+-" in results["null_is_chance"].message
    assert results["untrained_encoder_is_measured"].message.startswith("untrained: accuracy ")


@pytest.mark.parametrize(
    ("audit", "failing", "words"),
    [
        (OneDose, "doses_rise_from_zero", r"doses is \(3, 9\); declare three or more"),
        (Undeclared, "metrics_are_as_declared", "extra is not declared"),
        (NoRise, "score_rises_with_the_dose", "at 0, .* at 3, .* at 9, means of 3 seeds"),
        (Blind, "oracle_scores_at_the_end", "should be at the high end"),
        (Unequal, "null_is_chance", "nothing is planted, and accuracy - chance: "),
        (WrongChance, "null_is_chance", "or correct `chance`"),
        (Changing, "frozen_weights_are_unchanged", "work on a copy"),
        (Random, "equal_seeds_give_equal_results", "details"),
    ],
)
def test_a_wrong_audit_fails_exactly_one_check(audit, failing, words, tmp_path):
    failed = [result for result in check_audit(audit, folder=tmp_path) if result.status == "failed"]
    assert [result.name for result in failed] == [failing]
    assert re.search(words, failed[0].message)


def test_a_waived_check_of_an_audit(tmp_path):
    class Waived(Unequal):
        waivers: ClassVar = {"null_is_chance": "the groups differ before anything is planted"}

    result = audit_suite(Waived, folder=tmp_path).result("null_is_chance")
    assert (result.status, result.message) == ("waived", "the groups differ before anything is planted")


def test_chance_at_the_declared_end_is_one_line(tmp_path):
    suite = audit_suite(AtTheEnd, folder=tmp_path)
    for name in ("score_rises_with_the_dose", "oracle_scores_at_the_end"):
        result = suite.result(name)
        assert result.status == "failed"
        assert result.message.startswith("chance is at the declared end of accuracy, 100 percent; correct `chance`")


def test_an_audit_that_cannot_run_on_an_untrained_encoder_fails(tmp_path):
    result = audit_suite(Sized, folder=tmp_path).result("untrained_encoder_is_measured")
    assert result.status == "failed"
    assert "is_planted" in result.message


def test_an_effect_may_move_the_score_down(tmp_path):
    class Errors(Bias):
        """The share of errors, which falls if the groups differ."""

        metrics: ClassVar = (Metric("errors", "percent", 0.0, 100.0, higher_is_better=False),)
        effect_end = "low"

        def scored(self, hits, encoder):
            return TaskResult({"errors": Measured(100 - 100 * float(hits.float().mean()), len(hits))})

    assert {result.status for result in check_audit(Errors, folder=tmp_path)} == {"passed"}


def test_the_command_runs_the_checks_of_audits(mimbench, tmp_path):
    plugin = tmp_path / "audit_in_a_file.py"
    plugin.write_text("from testing.test_audits import Bias\n\n\nclass Filed(Bias):\n    name = 'filed'\n")
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = mimbench("check", "task", "filed", "--plugin", str(plugin), PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["oracle_scores_at_the_end", "passed", "accuracy", "100.0"] in [line[:4] for line in lines]
