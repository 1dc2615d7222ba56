"""A task that costs nothing and returns what its option says, so that grids can be tested by the dozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from mimbench.contract import Measured, Metric, Task, TaskConfig, TaskResult


class ToyConfig(TaskConfig):
    level: float = 50.0


class Toy(Task):
    """Reports `level`; `hook` is called at each run with (name, seed), and may raise."""

    name: ClassVar[str] = "toy"
    version: ClassVar[str] = "1"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("score", "percent", 0.0, 100.0),)
    Config = ToyConfig
    hook: ClassVar[Callable[[str, int], None]] = staticmethod(lambda name, seed: None)

    def run(self, encoder, dataset, context):
        Toy.hook(self.name, context.seed)
        return TaskResult({"score": Measured(self.config.level, 1)})

    def chance(self, dataset):
        return 10.0


class OtherToy(Toy):
    name: ClassVar[str] = "other-toy"


TINY = (
    "data.train_limit=64",
    "data.test_limit=20",
    "pretrain.epochs=1",
    "pretrain.schedule.warmup_epochs=0",
    "pretrain.batch_size=32",
)
"""A pretraining of two steps on the smoke recipe."""
