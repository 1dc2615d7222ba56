"""A results folder in which grids of toy tasks run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from helpers.toy_plugins import TINY, OtherToy, Toy
from mimbench import registry
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.plan import plan
from mimbench.harness.running.scheduler import Scheduler
from mimbench.harness.running.session import Session
from mimbench.harness.running.trainer import Trainer
from mimbench.recipe.document import parse_assignments, parse_variations
from mimbench.store.store import Store

CPU = torch.device("cpu")


class Bench:
    """One results folder, and what was run in it."""

    def __init__(self, folder: Path, cache: Path, monkeypatch) -> None:
        self.store, self.cache, self.monkeypatch = Store(folder), cache, monkeypatch
        self.screen, self.ran, self.trained = io.StringIO(), [], []
        self.fails: dict[object, Exception] = {}
        self.console = Console(file=self.screen, width=10_000)
        for toy in (Toy, OtherToy):
            monkeypatch.setitem(registry.tasks.replacements, toy.name, toy)
        monkeypatch.setattr(Toy, "hook", staticmethod(self._task))
        fit_method = Trainer.fit_method

        def noting(trainer, last, *rest):
            self._training(last)
            return fit_method(trainer, last, *rest)

        monkeypatch.setattr(Trainer, "fit_method", noting)

    def _task(self, name: str, seed: int) -> None:
        self.ran.append((name, seed))
        if (name, seed) in self.fails:
            raise self.fails[name, seed]

    def _training(self, pretraining) -> None:
        self.trained.append(pretraining.label)
        if pretraining.label in self.fails:
            raise self.fails[pretraining.label]

    def planned(self, methods="simmim", tasks="toy", seeds=(0,), settings=(), vary=()):
        request = Request(
            methods.split(","),
            tasks.split(","),
            "smoke",
            list(seeds),
            parse_assignments([*TINY, *settings]),
            parse_variations(vary),
        )
        return request, plan(request, CPU, self.cache)

    def run(self, *arguments, **named):
        self.screen.truncate(self.screen.seek(0))
        request, cells = self.planned(*arguments, **named)
        return Scheduler(Session(self.store, CPU, self.console), request, cells).run()

    def moves(self, name: str) -> None:
        """To another results folder; nothing has run there."""
        self.store = Store(self.store.root.with_name(name))
        self.ran.clear()
        self.trained.clear()

    @property
    def said(self) -> str:
        return self.screen.getvalue()


@pytest.fixture
def bench(tmp_path, cache, monkeypatch):
    return Bench(tmp_path / "runs", cache, monkeypatch)
