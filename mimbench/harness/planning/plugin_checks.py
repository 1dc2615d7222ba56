"""Checks of what plugins return against the contract: exported encoders, masks, datasets and results."""

from __future__ import annotations

import math
from typing import Any

import torch

from mimbench import registry
from mimbench.contract import (
    ArraySplit,
    Dataset,
    Encoder,
    ImageSplit,
    InputError,
    Measured,
    Method,
    NotSupported,
    RunError,
    SampleScores,
    SplitName,
    Task,
    TaskResult,
)
from mimbench.plugin_source import location
from mimbench.store.scores import FILE, SCORES

_PIXELS = (torch.uint8, torch.uint16, torch.float32)
_NUMBERS = ("embed_dim", "out_dim", "patch_size", "stride", "num_layers", "num_prefix_tokens")


def check_method(method: Method, name: str, encoder: str) -> None:
    """Raise InputError if tasks cannot use the encoder that the method exports, or its masks have another form."""
    whose = f"method {name!r} of {registry.methods.owner(name)}"
    exported: Any = method.exported_encoder()
    where = location(type(method).exported_encoder)
    if not isinstance(exported, Encoder):
        raise InputError(
            f"{whose}: exported_encoder gives a {type(exported).__name__}, not an Encoder ({where}); give self.encoder "
            "or a copy of it"
        )
    if not any(module is exported for module in method.modules()):
        raise InputError(
            f"{whose}: exported_encoder gives an encoder that is no part of the method ({where}); keep it as an "
            "attribute, so that it is stored with the method"
        )
    if exported.kind != method.encoder.kind:
        raise InputError(
            f"{whose}: exported_encoder gives a {exported.kind} encoder, the recipe's is a {method.encoder.kind} "
            f"({where})"
        )
    for attribute in _NUMBERS:
        value = getattr(exported, attribute, None)
        if type(value) is not int:
            raise InputError(
                f"encoder {encoder!r} of {registry.encoders.owner(encoder)}: {attribute} is {value!r}, not a whole "
                f"number; set self.{attribute} in __init__ ({location(type(exported))})"
            )
    if method.pretrains and (problem := _describe_mask_problem(method)):
        raise InputError(f"{whose}: sample_mask {problem} ({location(type(method).sample_mask)})")


def _describe_mask_problem(method: Method) -> str | None:
    """What is wrong with the masks of two images, or None. Of a mask of another structure, its cells are checked."""
    try:
        mask: Any = method.sample_mask(2, torch.Generator())
    except NotSupported:
        return None
    if not isinstance(mask, torch.Tensor) or type(method).masked_cells is not Method.masked_cells:
        mask = method.masked_cells(mask)
    if mask is None:
        return None
    if not isinstance(mask, torch.Tensor):
        return f"gives masks whose masked_cells are a {type(mask).__name__}; return a bool tensor or None"
    if mask.dtype != torch.bool or mask.ndim != 3 or len(mask) != 2:
        return (
            f"gives {mask.dtype} {list(mask.shape)} for 2 images; return bool [2, rows, columns], True = masked, "
            "as mimbench.masks.random_mask does"
        )
    grid, cells = method.encoder.grid, tuple(mask.shape[1:])
    if any(max(pair) % min(pair) for pair in zip(grid, cells, strict=True)):
        return (
            f"gives {cells[0]} x {cells[1]} cells, and the encoder has {grid[0]} x {grid[1]}: neither is a multiple "
            "of the other; change the mask's patch size"
        )
    return None


def check_dataset(dataset: Dataset, name: str) -> None:
    """Raise InputError if a fingerprint is not stable, or images and labels break the contract."""
    whose = f"dataset {name!r} of {registry.datasets.owner(name)}"
    where = location(type(dataset))
    first, again = dataset.fingerprint(), dataset.fingerprint()
    if not isinstance(first, str) or first != again:
        raise InputError(
            f"{whose}: its fingerprint is {first!r} and then {again!r}; let fingerprint() give a text that depends on "
            f"the content alone ({where})"
        )
    if type(dataset.channels) is not int or dataset.channels < 1:
        raise InputError(f"{whose}: channels is {dataset.channels!r}, not a whole number above 0 ({where})")
    if not {"train", "test"} <= set(dataset.parts):
        raise InputError(f"{whose}: parts is {dataset.parts!r}, without 'train' and 'test' ({where})")
    for part in dataset.parts:
        problem = _describe_split_problem(dataset, part)
        if problem:
            raise InputError(f"{whose}: in its {part} split, {problem} ({where})")


def _describe_split_problem(dataset: Dataset, part: SplitName) -> str | None:
    """What is wrong with the labels or the first image of a part, or None. A part that cannot be opened is skipped."""
    try:
        split = dataset.split(part)
        return _describe_problem(split, dataset) if isinstance(split, ImageSplit) and len(split) else None
    except InputError:
        return None


def _describe_problem(split: ImageSplit, dataset: Dataset) -> str | None:
    labels = split.labels
    if "labels" in dataset.provides:
        if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.shape != (len(split),):
            form = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, torch.Tensor) else type(labels).__name__
            return f"labels are {form}, not int64 [{len(split)}]"
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(split.classes):
            count = len(split.classes)
            return f"labels run from {low} to {high}, beyond 0 to {count - 1} of the {count} classes"
    for name, values in split.attributes.items():
        if not isinstance(values, torch.Tensor) or values.dtype != torch.int64 or values.shape != (len(split),):
            form = f"{values.dtype} {list(values.shape)}" if isinstance(values, torch.Tensor) else type(values).__name__
            return f"the attribute {name!r} is {form}, not int64 [{len(split)}]"
    image = split.images[0] if isinstance(split, ArraySplit) else split[0][0]
    if not isinstance(image, torch.Tensor) or image.dtype not in _PIXELS:
        form = str(image.dtype) if isinstance(image, torch.Tensor) else type(image).__name__
        return f"images are {form}, not tensors of uint8, uint16 or float32"
    black, white = split.pixel_range
    if image.dtype == torch.uint8 and (black, white) != (0, 255):
        return f"pixel_range is ({black:g}, {white:g}), but uint8 pixels run from 0 to 255"
    values = image.to(torch.float32)
    if not black < white or values.min() < black or values.max() > white:
        return (
            f"pixels run from {float(values.min()):g} to {float(values.max()):g}, outside of pixel_range "
            f"({black:g}, {white:g}); set it to the values of black and of full brightness"
        )
    if image.dtype != torch.uint8 and (black, white) == (0, 255) and values.max() <= 1:
        return "pixels run from 0 to 1 at most, and pixel_range is (0, 255); set pixel_range = (0.0, 1.0)"
    if image.ndim != 3 or image.shape[0] != dataset.channels:
        return f"images are {list(image.shape)}, not [{dataset.channels}, H, W] as `channels` says"
    return None


def check_result(task: Task, result: TaskResult) -> None:
    """Raise RunError if a metric is undeclared, no finite `Measured`, or if the primary metric is missing.

    The same holds for scores of single samples that break their contract.
    """
    whose = f"task {task.name!r} of {registry.tasks.owner(task.name)}"
    declared = [metric.name for metric in task.metrics]
    unknown = sorted(set(result.metrics) - set(declared))
    if unknown:
        raise RunError(f"{whose} reported undeclared metrics: {', '.join(unknown)}; add them to its `metrics`")
    if declared[0] not in result.metrics:
        raise RunError(f"{whose} left out its primary metric {declared[0]!r}; it reported {', '.join(result.metrics)}")
    _check_scores(result, whose)
    for name, measured in result.metrics.items():
        if not isinstance(measured, Measured):
            raise RunError(
                f"{whose} reported {name} = {measured!r}, a {type(measured).__name__}; return "
                "mimbench.api.Measured(value, number of samples)"
            )
        if not _is_finite(measured.value):
            raise RunError(
                f"{whose} reported {name} = {measured.value!r}, which is no finite number; nothing is recorded"
            )


def _check_scores(result: TaskResult, whose: str) -> None:
    scores: Any = result.scores
    if scores is None:
        return
    if not isinstance(scores, SampleScores):
        raise RunError(f"{whose} reported scores as a {type(scores).__name__}; return mimbench.api.SampleScores")
    try:
        scores.arrays()
    except ValueError as error:
        raise RunError(f"{whose} reported scores of single samples whose {error}; nothing is recorded") from error
    if SCORES in result.artifacts or FILE in [path.name for path in result.artifacts.values()]:
        raise RunError(f"{whose} reported scores, and an artifact {SCORES!r} or a file {FILE}; rename the artifact")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False
