"""Tiny settings of the frozen dense tasks, and a run of one with the real engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from helpers.tiny_finetune import context as engine_context
from helpers.tiny_segmentation import GREY, vit
from mimbench.contract import Dataset, Task, TaskContext, TaskResult
from mimbench.data import open_dataset
from mimbench_tasks.dense.knn import DenseKNN, DenseKNNConfig
from mimbench_tasks.dense.linear import DenseLinear, DenseLinearConfig

SIZES = {"image_size": 32, "mask_size": 32}


def linear(**options: Any) -> DenseLinear:
    train = {"epochs": 2, "batch_size": 4, "base_lr": 1e-2, "workers": 0, "weight_decay": 0.0}
    train |= options.pop("train", {})
    return DenseLinear(DenseLinearConfig(**{"train": train, **SIZES, **options}))


def knn(**options: Any) -> DenseKNN:
    return DenseKNN(DenseKNNConfig(**{**SIZES, "neighbours": (3,), **options}))


def folder(root: Path, cache: Path, **options: Any) -> Dataset:
    return open_dataset("ade20k", {"root": str(root), "channels": 1, **options}, cache)


def context(workdir: Path, **changes: Any) -> TaskContext:
    workdir.mkdir(parents=True, exist_ok=True)
    return replace(engine_context(workdir), workdir=workdir, input=GREY, **changes)


def run(task: Task, dataset: Dataset, workdir: Path, encoder: torch.nn.Module | None = None) -> TaskResult:
    encoder = encoder or vit(4)
    task.check(encoder, dataset)
    return task.run(encoder, dataset, context(workdir))
