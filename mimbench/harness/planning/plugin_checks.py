"""Checks of what plugins return against the contract: exported encoders, masks, datasets and results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from mimbench import registry
from mimbench.contract import (
    ArraySplit,
    Dataset,
    Encoder,
    GroupedSamples,
    ImageSplit,
    InputConfig,
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
from mimbench.contract.forms import (
    describe_attribute_problem,
    describe_image_problem,
    describe_labels_problem,
    describe_layers_problem,
    describe_mask_problem,
    describe_tokens_problem,
)
from mimbench.plugin_source import location
from mimbench.store.samples import FILE as SAMPLES_FILE
from mimbench.store.samples import SAMPLES
from mimbench.store.scores import FILE, SCORES

_IMAGES = 2
"""Images that masks are sampled for."""
_NUMBERS = ("embed_dim", "out_dim", "patch_size", "stride", "num_layers", "num_prefix_tokens", "tubelet")


def check_method(method: Method, name: str) -> None:
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
    if method.pretrains and (problem := describe_masks_problem(method)):
        raise InputError(f"{whose}: the result of sample_mask {problem} ({location(type(method).sample_mask)})")


def describe_masks_problem(method: Method) -> str | None:
    """What is wrong with the masks of two images, or None. Of a mask of another structure, its cells are checked."""
    try:
        mask: Any = method.sample_mask(_IMAGES, torch.Generator())
    except NotSupported:
        return None
    if not isinstance(mask, torch.Tensor) or type(method).masked_cells is not Method.masked_cells:
        mask = method.masked_cells(mask)
    return None if mask is None else describe_mask_problem(mask, _IMAGES, method.encoder, method.image_size)


def check_encoder(encoder: Encoder, name: str) -> None:
    """Raise InputError if the encoder declares no sizes, or returns other shapes for a blank image."""
    whose = f"encoder {name!r} of {registry.encoders.owner(name)}"
    for attribute in _NUMBERS:
        value = getattr(encoder, attribute, None)
        if type(value) is not int:
            raise InputError(
                f"{whose}: {attribute} is {value!r}, not a whole number; set self.{attribute} in __init__ "
                f"({location(type(encoder))})"
            )
    images = torch.zeros(1, *encoder.input_shape)
    was_training = encoder.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        tokens: Any = encoder.eval().embed(images)
        if problem := describe_tokens_problem(encoder, tokens, 1):
            raise InputError(f"{whose}: {problem} ({location(type(encoder).embed)})")
        layers = encoder.forward_layers(tokens)
    encoder.train(was_training)
    if problem := describe_layers_problem("forward_layers", encoder, layers, 1):
        raise InputError(f"{whose}: {problem} ({location(type(encoder).forward_layers)})")


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
    if type(dataset.frames) is not int or dataset.frames < 1:
        raise InputError(f"{whose}: frames is {dataset.frames!r}, not a whole number above 0 ({where})")
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
    has_labels = "labels" in dataset.provides
    problem = has_labels and describe_labels_problem(split.labels, len(split), len(split.classes))
    if problem:
        return f"labels {problem}"
    for name, values in split.attributes.items():
        if problem := describe_attribute_problem(values, len(split)):
            return f"values of the attribute {name!r} {problem}"
    image = split.images[0] if isinstance(split, ArraySplit) else split[0][0]
    problem = describe_image_problem(image, dataset.channels, split.pixel_range, dataset.frames)
    return f"image 0 {problem}" if problem else None


def check_frames(dataset: Dataset, name: str, input_config: InputConfig) -> None:
    """Raise InputError if a dataset has other clips than [input], or clips instead of images."""
    if dataset.frames == input_config.frames:
        return
    holds = "images" if dataset.frames == 1 else f"clips of {dataset.frames} frames"
    raise InputError(
        f"dataset {name!r} has {holds}, and input.frames is {input_config.frames}; set input.frames to "
        f"{dataset.frames}, or choose another dataset"
    )


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
    _check_samples(result, whose)
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
        raise RunError(
            f"{whose} reported scores of single samples that cannot be stored: {error}; nothing is recorded"
        ) from error
    if SCORES in result.artifacts or FILE in _file_names(result):
        raise RunError(f"{whose} reported scores, and an artifact {SCORES!r} or a file {FILE}; rename the artifact")


def _check_samples(result: TaskResult, whose: str) -> None:
    """Raise RunError if values of single samples are none of a metric, or do not have it as their mean."""
    for name, column in result.by_sample.items():
        values, groups = as_samples(column)
        measured = result.metrics.get(name)
        if not isinstance(measured, Measured):
            raise RunError(f"{whose} reported by_sample of {name!r}, which is no metric of this result; rename it")
        if values is None or values.shape != (measured.n,):
            raise RunError(
                f"{whose} reported by_sample[{name!r}] in another form than [{measured.n}], bool or finite numbers"
            )
        if (
            groups.shape != values.shape
            or groups.dtype.kind not in "iu"
            or set(np.unique(groups)) != set(range(int(groups.max()) + 1))
        ):
            raise RunError(
                f"{whose} reported by_sample[{name!r}] with groups in another form than [{measured.n}], 0 and more, "
                "each of which occurs"
            )
        means = np.bincount(groups, values) / np.bincount(groups)
        mean = float(means.mean()) * (100 if values.dtype == bool else 1)
        if not math.isclose(mean, measured.value, rel_tol=1e-5, abs_tol=1e-5):
            raise RunError(
                f"{whose} reported {name} = {measured.value}, and by_sample of it has the mean {mean}; nothing is "
                "recorded"
            )
    for detections in result.detections:
        if problem := detections.problem():
            raise RunError(f"{whose} reported detections in another form: {problem}")
        if unknown := sorted(set(detections.metrics) - set(result.metrics)):
            raise RunError(
                f"{whose} reported detections of {unknown[0]!r}, which is no metric of this result; rename it"
            )
    if result.pixels is not None:
        if problem := result.pixels.problem():
            raise RunError(f"{whose} reported pixels in another form: {problem}")
        if unknown := sorted(set(result.pixels.metrics) - set(result.metrics)):
            raise RunError(f"{whose} reported pixels of {unknown[0]!r}, which is no metric of this result; rename it")
    if (result.by_sample or result.detections or result.pixels) and (
        SAMPLES in result.artifacts or SAMPLES_FILE in _file_names(result)
    ):
        raise RunError(
            f"{whose} reported by_sample, pixels or detections, and an artifact {SAMPLES!r} or a file "
            f"{SAMPLES_FILE}; rename it"
        )


def as_samples(reported: Any) -> tuple[np.ndarray | None, np.ndarray]:
    """Values of samples as an array, bool or float64, None if they are no finite numbers; and their groups, int."""
    column = reported.values if isinstance(reported, GroupedSamples) else reported
    array = column.detach().cpu().numpy() if isinstance(column, torch.Tensor) else column
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        return None, np.zeros(0, np.int64)
    values = array if array.dtype == bool else array.astype(np.float64)
    groups = np.asarray(reported.groups) if isinstance(reported, GroupedSamples) else np.zeros(values.shape, np.int64)
    return (values if np.isfinite(values).all() else None), groups


def _file_names(result: TaskResult) -> list[str]:
    return [path.name for path in result.artifacts.values()]


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False
