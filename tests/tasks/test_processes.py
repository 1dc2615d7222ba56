"""Tasks in two processes give what they give in one: frozen ones to the last bit, trained ones up to rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from helpers.tiny_finetune import CPU, INPUT, Greys, encoder
from helpers.tiny_finetune import context as training_context
from helpers.two_processes import join, run_in_two
from mimbench.contract import TaskResult
from mimbench.harness.running.features import FrozenFeatures
from mimbench.store.store import Store
from mimbench_tasks.few_shot import FewShot, FewShotConfig
from mimbench_tasks.knn import KNN, KNNConfig
from mimbench_tasks.linear_probe import LinearProbe, LinearProbeConfig
from mimbench_tasks.robustness.task import Robustness, RobustnessConfig

SOLVERS = ("sklearn", "torch")


def frozen_tasks(folder: Path) -> dict[str, TaskResult]:
    """Results of the tasks on frozen features, whose images are noisy enough that some answers are wrong."""
    data, vit = Greys(n=50, side=16), encoder()
    data.images = (data.images // 4 + torch.randint(0, 190, data.images.shape, generator=torch.Generator())).byte()
    context = training_context(folder)
    source = FrozenFeatures(vit, INPUT, CPU, {}, Store(folder), say=print, batch=8)
    context = type(context)(**{**vars(context), "features": source})
    context.workdir.mkdir(parents=True, exist_ok=True)
    tasks = {"knn": KNN(KNNConfig(chunk=8))}
    for solver in SOLVERS:
        tasks[f"probe {solver}"] = LinearProbe(LinearProbeConfig(layers="all", solver=solver))
        tasks[f"few-shot {solver}"] = FewShot(FewShotConfig(draws=2, solver=solver))
        tasks[f"robustness {solver}"] = Robustness(RobustnessConfig(test_limit=5, severities=(1, 5), solver=solver))
    return {name: task.run(vit, data, context) for name, task in tasks.items()}


def differences(one: TaskResult, other: TaskResult) -> list[str]:
    """Parts in which two results differ by any bit."""
    names = [
        part for part in ("metrics", "curves", "details") if dict(getattr(one, part)) != dict(getattr(other, part))
    ]
    if one.scores is not None:
        arrays = other.scores.arrays()
        names += [name for name, values in one.scores.arrays().items() if not np.array_equal(values, arrays[name])]
    return names


def compare(rank, port, folder, failures):
    join(rank, port)
    shared = frozen_tasks(folder / "two")
    torch.distributed.destroy_process_group()
    if rank:
        return
    alone = frozen_tasks(folder / "one")
    for name, result in alone.items():
        if differing := differences(result, shared[name]):
            failures.put(f"{name}: {differing}")


def test_tasks_are_the_same_in_two_processes(tmp_path):
    run_in_two(compare, tmp_path)
