"""The learning rate of each optimizer step, as the official scripts really use it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from mimbench.contract.schedule_config import ScheduleConfig
from mimbench.contract.train_config import TrainConfig
from mimbench.errors import InputError
from mimbench.optim.groups import set_rates

KINDS = {
    "plain": ("cosine", "linear", "multistep", "constant"),
    "simmim": ("cosine", "multistep"),
    "mae": ("cosine",),
    "beit": ("cosine",),
    "ijepa": ("cosine",),
    "spark": ("cosine",),
}
"""The kinds that each convention knows: those that its official scripts have."""


@dataclass(frozen=True)
class Schedule:
    """Learning rates over the optimizer steps of a whole training.

    Conventions (`ScheduleConfig.convention`):
        plain: from warmup_lr to the peak, then the kind over what is left; the layer scale multiplies all.
        simmim (microsoft/SimMIM@d3e29bca): the scheduler runs after the optimizer, so each step uses the
            rate of the one before; the cosine starts at step 0 and not after the warmup, so that the peak lies
            below base_lr; the batch scales warmup_lr and min_lr too, the layer scale neither; with
            accumulation, time is counted in micro-batches.
        mae (facebookresearch/mae@efb2a806): as plain, from 0.
        beit (microsoft/unilm@768a3c87, beit/): warmup_lr is ignored, the warmup starts at 0 and ends on
            base_lr, which the first step of the cosine uses once more.
        ijepa (facebookresearch/ijepa@52c1ae95, src/utils/schedulers.py): as plain, but each step uses the rate and the
            weight decay of its end, so that the last step has exactly min_lr and final_weight_decay.
        spark (keyu-tian/SparK@a63e386f, pretrain/utils/lr_control.py): as plain, but the cosines of the rate and of the
            weight decay reach their ends at the last step; the batch scales warmup_lr and min_lr too.

    With `cycles` above 1 all this is said of one cycle: a training of an equal share of the steps. The weight decay is
    that of the whole training.

    Raises:
        InputError: the convention has no such kind, or a value of the schedule could have no effect.
    """

    config: TrainConfig
    steps_per_epoch: int
    """Optimizer steps in an epoch."""

    def __post_init__(self) -> None:
        if self.steps_per_epoch < 1:
            raise InputError(f"an epoch has no step: batch_size {self.config.batch_size} exceeds the training images")
        _check_kind(self.config.schedule)
        _check_rates(self.config)
        _check_lengths(self)
        _check_milestones(self)
        if self.config.schedule.cycles > 1:
            _ = self.cycle  # checks its lengths

    @cached_property
    def cycle(self) -> Schedule:
        """One run of the schedule. Raises InputError if the training is no multiple of it."""
        config, cycles = self.config, self.config.schedule.cycles
        if config.length % cycles:
            raise InputError(
                f"schedule.cycles {cycles} does not divide the training, which has {_describe_length(self)}; "
                f"change {config.unit}s"
            )
        changes = {f"{config.unit}s": config.length // cycles}
        once = config.schedule.model_copy(update={"cycles": 1})
        return Schedule(config.model_copy(update={**changes, "schedule": once}), self.steps_per_epoch)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.config.steps or (self.config.epochs or 0) * self.steps_per_epoch

    @property
    def epochs(self) -> float:
        """Epochs of the whole training, with the fraction of the last one."""
        return self.config.epochs or self._to_epochs(self.steps)

    @property
    def warmup(self) -> float:
        """Epochs of the warmup, with a fraction."""
        rule = self.config.schedule
        return rule.warmup_epochs if rule.warmup_steps is None else self._to_epochs(rule.warmup_steps)

    @property
    def milestones(self) -> tuple[float, ...]:
        """Epochs, with fractions, after which the rate of a multistep schedule falls."""
        rule = self.config.schedule
        return rule.milestones or tuple(map(self._to_epochs, rule.milestone_steps))

    def _to_epochs(self, steps: int) -> float:
        return steps / self.steps_per_epoch

    def weight_decay(self, step: int) -> float:
        """The weight decay of optimizer step `step`, from 0, for the parameters that have any.

        With `final_weight_decay` it follows a half cosine without warmup, as in facebookresearch/dino@7c446df5
        utils.py cosine_scheduler. In the conventions "ijepa" and "spark" the last step has exactly the final value.
        """
        start, end = self.config.weight_decay, self.config.final_weight_decay
        convention = self.config.schedule.convention
        done = step + 1 if convention == "ijepa" else step
        length = max(self.steps - 1, 1) if convention == "spark" else self.steps
        return start if end is None else _cosine(start, end, done / length)

    def set_rates(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rates and weight decays of optimizer step `step`, from 0."""
        set_rates(optimizer, lambda scale: self.lr(step, scale), self.weight_decay(step))

    def lr(self, step: int, lr_scale: float = 1.0) -> float:
        """The rate that optimizer step `step`, from 0, uses for a group with layer scale `lr_scale`.

        Raises:
            ValueError: `step` is outside [0, steps).
        """
        if not 0 <= step < self.steps:
            raise ValueError(f"step {step} is outside the {self.steps} steps of this schedule")
        once = self.cycle if self.config.schedule.cycles > 1 else self
        return _RULES[self.config.schedule.convention](once, step % once.steps, lr_scale)


def _plain(schedule: Schedule, step: int, lr_scale: float) -> float:
    config, epoch = schedule.config, step / schedule.steps_per_epoch
    if epoch < schedule.warmup:
        return lr_scale * _line(config.schedule.warmup_lr, config.lr, epoch / schedule.warmup)
    return lr_scale * _after_warmup(schedule, epoch)


def _after_warmup(schedule: Schedule, epoch: float) -> float:
    config, rule = schedule.config, schedule.config.schedule
    if rule.kind == "constant":
        return config.lr
    if rule.kind == "multistep":
        return config.lr * rule.gamma ** sum(milestone <= epoch for milestone in schedule.milestones)
    progress = (epoch - schedule.warmup) / (schedule.epochs - schedule.warmup)
    if rule.kind == "linear":
        return _line(config.lr, rule.min_lr, progress)
    return _cosine(config.lr, rule.min_lr, rule.cosine_share * progress)


def _simmim(schedule: Schedule, step: int, lr_scale: float) -> float:
    config, rule = schedule.config, schedule.config.schedule
    updates_per_epoch = schedule.steps_per_epoch * config.accumulate
    update = max(step * config.accumulate - 1, 0)
    warmup = _whole(schedule.warmup * updates_per_epoch)
    peak = config.lr * lr_scale
    if update < warmup:
        return _line(rule.warmup_lr * config.lr_scale, peak, update / warmup)
    if rule.kind == "multistep":
        epoch = update / updates_per_epoch
        return peak * rule.gamma ** sum(milestone <= epoch for milestone in schedule.milestones)
    progress = rule.cosine_share * update / (schedule.steps * config.accumulate)
    return _cosine(peak, rule.min_lr * config.lr_scale, progress)


def _beit(schedule: Schedule, step: int, lr_scale: float) -> float:
    config, rule = schedule.config, schedule.config.schedule
    warmup = _whole(schedule.warmup * schedule.steps_per_epoch)
    if step < warmup:
        return lr_scale * config.lr * step / max(warmup - 1, 1)
    progress = rule.cosine_share * (step - warmup) / (schedule.steps - warmup)
    return lr_scale * _cosine(config.lr, rule.min_lr, progress)


def _ijepa(schedule: Schedule, step: int, lr_scale: float) -> float:
    config, done = schedule.config, step + 1
    warmup = _whole(schedule.warmup * schedule.steps_per_epoch)
    if done < warmup:
        return lr_scale * _line(config.schedule.warmup_lr, config.lr, done / warmup)
    progress = config.schedule.cosine_share * (done - warmup) / max(schedule.steps - warmup, 1)
    return lr_scale * _cosine(config.lr, config.schedule.min_lr, progress)


def _spark(schedule: Schedule, step: int, lr_scale: float) -> float:
    config, rule = schedule.config, schedule.config.schedule
    warmup = round(schedule.warmup * schedule.steps_per_epoch)
    if step < warmup:
        return lr_scale * _line(rule.warmup_lr * config.lr_scale, config.lr, step / warmup)
    progress = rule.cosine_share * (step - warmup) / max(schedule.steps - 1 - warmup, 1)
    return lr_scale * _cosine(config.lr, rule.min_lr * config.lr_scale, progress)


_RULES: dict[str, Callable[[Schedule, int, float], float]] = {
    "plain": _plain,
    "simmim": _simmim,
    "mae": _plain,
    "beit": _beit,
    "ijepa": _ijepa,
    "spark": _spark,
}


def _line(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _cosine(start: float, end: float, progress: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


def _whole(steps: float) -> int:
    """Cut to whole steps, as the official scripts do, except for their rounding error of 1/3 of an epoch x 3 steps."""
    return int(steps + 1e-6)


def _check_kind(rule: ScheduleConfig) -> None:
    kinds = KINDS[rule.convention]
    if rule.kind not in kinds:
        raise InputError(
            f"schedule.convention {rule.convention!r} has no {rule.kind} schedule, only {' and '.join(kinds)}; "
            'use schedule.convention = "plain"'
        )
    if rule.convention == "mae" and rule.warmup_lr > 0:
        raise InputError(
            f'schedule.warmup_lr {rule.warmup_lr:g}: convention "mae" always starts at 0; leave it out, or use "plain"'
        )


def _check_rates(config: TrainConfig) -> None:
    rule = config.schedule
    scale = config.lr_scale if rule.convention in ("simmim", "spark") else 1.0
    used = {
        "min_lr": rule.kind in ("cosine", "linear"),
        "warmup_lr": rule.has_warmup and rule.convention != "beit",
    }
    for name, counts in used.items():
        if counts and getattr(rule, name) * scale > config.lr:
            raise InputError(
                f"schedule.{name} {getattr(rule, name) * scale:g} is above the peak rate ({config.lr_arithmetic()})"
            )


def _check_lengths(schedule: Schedule) -> None:
    """Check a warmup that is given in another unit than the budget."""
    rule = schedule.config.schedule
    if rule.has_warmup and schedule.warmup * schedule.steps_per_epoch >= schedule.steps:
        name, value = ("epochs", rule.warmup_epochs) if rule.warmup_steps is None else ("steps", rule.warmup_steps)
        raise InputError(
            f"schedule.warmup_{name} {value:g} must be less than the training, which has {_describe_length(schedule)}; "
            f"set schedule.warmup_{schedule.config.unit}s"
        )


def _check_milestones(schedule: Schedule) -> None:
    rule = schedule.config.schedule
    name, milestones, per = "milestones", rule.milestones, "epoch"
    if rule.milestone_steps:
        name, milestones, per = "milestone_steps", rule.milestone_steps, "step"
    if (rule.kind == "multistep") != bool(milestones):
        problem = "needs" if rule.kind == "multistep" else "does not use"
        raise InputError(f"a {rule.kind} schedule {problem} schedule.{name}")
    if list(milestones) != sorted(set(milestones)):
        raise InputError(f"schedule.{name} {list(milestones)} do not rise")
    for milestone, epoch in zip(milestones, schedule.milestones, strict=True):
        if not schedule.warmup <= epoch < schedule.epochs:
            unit = "epoch" if rule.warmup_steps is None else "step"
            warmup = f"{rule.warmup_epochs:g}" if unit == "epoch" else f"{rule.warmup_steps}"
            warmup += f" {unit}s" if {unit, schedule.config.unit} != {per} else ""
            raise InputError(
                f"schedule.{name}: {per} {milestone:g} is outside the {_describe_length(schedule)} "
                f"(warmup: {warmup}) and would do nothing; change schedule.{name}"
            )


def _describe_length(schedule: Schedule) -> str:
    return f"{schedule.config.length} {schedule.config.unit}s"
