"""Planted images from the recipe to the task that looks for them."""

from __future__ import annotations

import json

import pytest

PLUGIN = '''
from mimbench.api import Measured, Metric, Task, TaskConfig, TaskResult, labelled_split, planted_indices
from mimbench.api import training_indices


class Members(Task):
    """Number of training images that are copies of planted ones."""

    name = "members"
    version = "1"
    metrics = (Metric("planted", "images", 0.0, 1e6),)
    Config = TaskConfig

    def run(self, encoder, dataset, context):
        choice, labels = context.pretrained_on, labelled_split(dataset, "train").labels
        if choice is None:
            return TaskResult({"planted": Measured(0.0, 1)}, details={"is_known": False})
        assert choice.content == dataset.fingerprint()
        planted = planted_indices(len(labels), choice).tolist()
        members = training_indices(labels, choice).tolist()
        count = sum(member in planted for member in members)
        return TaskResult({"planted": Measured(count, len(members))}, details={"is_known": True})

    def chance(self, dataset):
        return 0.0
'''


@pytest.fixture
def members(quick, tmp_path):
    """Runs the task that counts planted images, and returns its records."""
    plugin = tmp_path / "members.py"
    plugin.write_text(PLUGIN)

    def run(method: str, *arguments: str) -> list[dict]:
        small = ("--set", "data.train_limit=80", "--set", "data.test_limit=20")
        command = ("run", "--plugin", str(plugin), "--method", method, "--task", "members", "--recipe", "smoke")
        done = quick(*command, *small, *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/records/*.json"))]

    return run


def test_a_task_reads_from_the_checkpoint_which_images_were_planted(members, tmp_path):
    records = members("simmim", "--set", "pretrain.plant_count=5", "--vary", "pretrain.plant_copies=0,4")
    counts = {record["varied"]["pretrain.plant_copies"]: record["metrics"]["planted"] for record in records}
    assert {copies: (value["value"], value["n"]) for copies, value in counts.items()} == {0: (0, 75), 4: (20, 95)}

    control, *_ = members("random-init")
    assert control["details"]["is_known"] is False  # it was trained on no images

    weights, *_ = tmp_path.glob("runs/checkpoints/*/encoder.safetensors")
    started = members("mae", "--set", f"pretrain.start={weights}")
    (from_weights,) = [record for record in started if record["method"]["name"] == "mae"]
    assert from_weights["details"]["is_known"] is False  # the weights have seen other images
