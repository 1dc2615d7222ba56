"""A pretraining's record says how many operations and patches an image costs."""

from __future__ import annotations

import json

from mimbench.harness.planning import step_cost
from mimbench.harness.planning.step_cost import count_step
from mimbench.harness.running import trainer
from mimbench.recipe.document import read
from mimbench.recipe.resolve import resolve

COMMAND = ("run", "--method", "mae", "--task", "knn", "--recipe", "smoke")


def test_records_hold_the_counted_cost_of_long_trainings(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(step_cost, "LEAST_STEPS", 1)
    assert quick(*COMMAND).returncode == 0
    (path,) = tmp_path.glob("runs/records/*.json")
    checkpoint = json.loads(path.read_text())["checkpoint"]
    counted = count_step(resolve("smoke", read("smoke"), "mae", {}, None), channels=1)
    assert checkpoint["flops_per_image"] == counted.flops > 0
    assert checkpoint["patches_per_image"] == counted.patches == 12
    assert "12 patches" in quick("show", "record", str(path)).stdout
    assert "(FLOP)" in _plotted(quick, tmp_path)


def test_short_trainings_are_not_counted(quick, tmp_path):
    assert quick(*COMMAND).returncode == 0
    (path,) = tmp_path.glob("runs/records/*.json")
    assert json.loads(path.read_text())["checkpoint"]["flops_per_image"] is None
    assert "(FLOP)" not in _plotted(quick, tmp_path)


def test_a_step_that_cannot_be_counted_does_not_end_the_training(quick, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("needs a GPU")

    monkeypatch.setattr(step_cost, "LEAST_STEPS", 1)
    monkeypatch.setattr(trainer, "count_training", refuse)
    done = quick(*COMMAND)
    assert done.returncode == 0
    assert "mae seed 0: operations of a step not counted: needs a GPU" in done.stdout + done.stderr
    (path,) = tmp_path.glob("runs/records/*.json")
    assert json.loads(path.read_text())["checkpoint"]["flops_per_image"] is None


def _plotted(quick, tmp_path) -> str:
    """The text of the cost plot."""
    done = quick("plot", "cost", "--output", "cost.svg")
    assert done.returncode == 0, done.stderr
    return (tmp_path / "cost.svg").read_text()
