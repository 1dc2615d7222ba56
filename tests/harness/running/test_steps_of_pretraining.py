"""Pretrainings and tasks whose budget is in optimizer steps: weights at several steps, records, tables, estimates."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mimbench.harness.planning.dryrun import describe_plan, summarize_plan
from mimbench.harness.planning.estimate import Estimator
from mimbench.report.page.leaderboard import build_leaderboard, describe_leaderboard
from mimbench.report.records.frame import load_records
from mimbench.report.scores.choice import Choice
from mimbench.report.tables.comparison import build_comparison

SEVEN = ["pretrain.epochs=none", "pretrain.steps=7", "pretrain.checkpoint_every=1"]
"""Of 2 steps per epoch: three epochs and a half."""
SOME = ["pretrain.at_step=0,1,4,7"]


def cards(bench) -> dict[int, dict]:
    """Cards of checkpoints by the step of the schedule."""
    read = [json.loads(path.read_text()) for path in bench.store.root.glob("checkpoints/*/checkpoint.json")]
    return {card["what"]["pretrain"].get("at_step", 7): card for card in read}


def weights(bench) -> dict[int, str]:
    return {step: card["sha256"]["encoder.safetensors"] for step, card in cards(bench).items()}


def test_weights_at_several_steps_come_of_one_training(bench):
    outcome = bench.run(settings=SEVEN, vary=SOME)
    assert bench.trained == ["simmim seed 0"]
    assert "kept at steps 1, 4 too" in bench.said
    assert [record.varied.get("pretrain.at_step") for record in outcome.records] == [0, 1, 4, None]
    costs = [record.checkpoint.cost for record in outcome.records]
    assert [(cost.steps, cost.images_seen) for cost in costs] == [(0, 0), (1, 32), (4, 128), (7, 224)]
    assert [len(record.checkpoint.loss) for record in outcome.records] == [0, 1, 2, 4]
    together = weights(bench)
    assert len(set(together.values())) == 4
    assert not list(bench.store.root.glob("work/*/"))
    bench.moves("alone")
    bench.run(settings=[*SEVEN, "pretrain.at_step=1"])
    bench.run(settings=[*SEVEN, "pretrain.at_step=4"])
    bench.run(settings=SEVEN)
    assert weights(bench) == {step: together[step] for step in (1, 4, 7)}
    assert cards(bench)[7]["cost"]["loss"] == list(outcome.records[-1].checkpoint.loss)


def test_steps_of_whole_epochs_give_the_weights_of_these_epochs(bench):
    (in_epochs,) = bench.run(settings=["pretrain.epochs=2"]).records
    bench.moves("steps")
    (in_steps,) = bench.run(settings=["pretrain.epochs=none", "pretrain.steps=4"]).records
    assert in_steps.checkpoint.weights_sha256 == in_epochs.checkpoint.weights_sha256
    assert in_steps.checkpoint.loss == in_epochs.checkpoint.loss
    assert in_steps.checkpoint.fingerprint != in_epochs.checkpoint.fingerprint


def test_tables_say_steps(bench):
    bench.run(settings=SEVEN, vary=["pretrain.at_step=4,7"])
    tidy = load_records(bench.store.root, earlier_epochs=True)
    first = tidy.drop_duplicates("id").sort_values("at_step")
    assert first["at_step"].tolist() == [4, 7]
    assert first["step_budget"].tolist() == [7, 7]
    assert first["pretrain_epochs"].isna().all()
    assert first["final"].tolist() == [False, True]
    table = build_comparison(tidy, Choice())
    assert len(table.rows) == 1
    assert "1 record of earlier steps of these pretrainings" in str(table.remarks)
    assert len(build_comparison(tidy, Choice(row_fields=("method", "pretrain.at_step"))).rows) == 2
    board = build_leaderboard(tidy)
    rows = describe_leaderboard(board, {id_: index for index, id_ in enumerate(tidy["id"].unique())})["rows"]
    assert {row["pretraining"] for row in rows} == {"mnist5k, step 4 of 7", "mnist5k, 7 steps"}
    assert {row["epoch"] for row in rows} == {"step 4 of 7", ""}


def test_a_plan_counts_steps(bench):
    bench.run(settings=SEVEN, seeds=(9,))
    (path,) = bench.store.root.glob("checkpoints/*/checkpoint.json")
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"cost": card["cost"] | {"seconds": 22.4, "images_seen": 224}}))
    _, cells = bench.planned(settings=SEVEN, vary=["pretrain.at_step=1,5"])
    estimator = Estimator.from_results(bench.store.root, card["cost"]["device"])
    assert estimator.estimate([cell.pretraining for cell in cells], []).pretraining == pytest.approx(5 * 32 * 0.1)
    description = describe_plan(summarize_plan(cells, bench.store.root, card["cost"]["device"]), bench.store.root)
    assert "pretrainings: 1, saved at 2 steps in all, 0 done, 1 to run" in description


def test_the_time_of_a_task_scales_with_the_length_of_its_training(bench):
    _, (cell,) = bench.planned()

    def record(train: dict, images: int, seconds: float) -> dict:
        return {
            "protocol": {**cell.protocol, "train": train},
            "recipe": {"encoder": cell.pretraining.recipe.as_tables()["encoder"]},
            "cost": {"device": "here", "seconds": seconds, "images_seen": images},
        }

    def seconds_of(train: dict, *records: dict) -> float | None:
        estimator = Estimator("here")
        for one in records:
            estimator.add_record(one)
        return estimator.task_seconds(replace(cell, protocol={**cell.protocol, "train": train}))

    in_epochs = record({"epochs": 2, "batch_size": 8}, 400, 10.0)
    in_steps = record({"epochs": None, "steps": 100, "batch_size": 8}, 800, 10.0)
    assert seconds_of({"epochs": 6, "batch_size": 8}, in_epochs) == pytest.approx(30.0)
    assert seconds_of({"epochs": None, "steps": 100, "batch_size": 8}, in_epochs) == pytest.approx(20.0)
    assert seconds_of({"epochs": None, "steps": 300, "batch_size": 8}, in_steps) == pytest.approx(30.0)
    assert seconds_of({"epochs": 6, "batch_size": 8}, in_steps) is None
    assert seconds_of({"epochs": 6, "batch_size": 8}, in_steps, in_epochs) == pytest.approx(30.0)
