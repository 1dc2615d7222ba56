"""Stages of a training: each begins with the student as the new teacher, and with a fresh student (dBOT)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.api import Method, Teacher, derive_seed, fork_rng


class StagedMethod(Method):
    """A method with a frozen `teacher`, which its encoder replaces at the end of each stage.

    `__init__` calls `start_stages` last. Subclasses say what a fresh student consists of.
    """

    teacher: Teacher
    stages: int
    """Equal shares of the training."""
    stage: Tensor
    restart_seed: Tensor
    _stage: int | None
    """`stage` on the host; None: to be read, since other weights were loaded."""

    @abstractmethod
    def student(self) -> nn.ModuleList:
        """What begins each stage with fresh weights."""

    @abstractmethod
    def make_student(self) -> nn.ModuleList:
        """The same with initial weights, from the global torch generator."""

    def start_stages(self, stages: int) -> None:
        """Begin with stage 0. Stage and seed are stored, so that a resumed training has the same stages and weights."""
        self.stages = stages
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))
        self.register_buffer("restart_seed", torch.randint(2**31, ()))
        self._stage = None
        self.register_load_state_dict_pre_hook(_forget_stage)

    def before_step(self, progress: float) -> None:
        """Begin the next stage, if `progress` is its first."""
        if self._stage is None:
            self._stage = int(self.stage)
        stage = int(progress * self.stages + 1e-9)
        if stage > self._stage:
            self.begin_stage(stage)

    @torch.no_grad()
    def begin_stage(self, stage: int) -> None:
        """Make the student the teacher, and give the student initial weights again.

        As officially, the patch embedding keeps its bias, and the optimizer its moments.
        """
        self.teacher.follow(self.encoder, 0.0)
        with fork_rng(derive_seed(self.name, int(self.restart_seed), stage)):
            fresh = self.make_student()
        stays = {id(part.bias) for part in self.encoder.modules() if isinstance(part, nn.Conv2d)}
        for old, new in zip(self.student().parameters(), fresh.parameters(), strict=True):
            if id(old) not in stays:
                old.copy_(new)
        self.stage.fill_(stage)
        self._stage = stage


def _forget_stage(method: StagedMethod, *_: Any) -> None:
    method._stage = None
