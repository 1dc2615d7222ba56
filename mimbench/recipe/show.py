"""A resolved recipe for people to read: every value with its source, and the arithmetic of derived values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from mimbench.contract import Config, Method, TrainConfig
from mimbench.contract.image_sizes import require_multiple
from mimbench.contract.validation import NONE
from mimbench.errors import InputError, NotSupported
from mimbench.recipe import document as recipe_document
from mimbench.recipe.needs import check_method_needs
from mimbench.recipe.resolve import Recipe, check_settings, resolve

MASKS = 256
"""Number of masks that are drawn to count how many patches a method masks."""


def describe(name: str, method: str, settings: Mapping[str, Any]) -> str:
    """The resolved recipe as TOML; loading it again gives the same recipe.

    Each value is followed by its source, or by "default" if the recipe does not set it.

    Raises:
        InputError: an unknown recipe, method or key, or an impossible value.
    """
    for path in settings:
        if path.startswith("task."):
            rest = path.removeprefix("task.")
            raise InputError(f"--set {path}: a recipe is for all tasks; name the task: --set tasks.NAME.{rest}=VALUE")
    document = recipe_document.read(name)
    check_settings(list(settings), [method], [])
    recipe = resolve(name, document, method, settings, None)
    _check_needs(recipe)
    lines = [f"# recipe {name}, resolved for {method}{_owner(name)}"]
    if document.get("summary"):
        lines.append(f"summary = {_toml(document['summary'])}")
    sources = {"method.name": "", **recipe.sources}
    for table, values in recipe.as_tables().items():
        lines += ["", f"[{table}]", *_table(table, values, sources)]
        lines += [f"# {line}" for line in _derived(table, recipe)]
    for task in recipe.task_tables:
        config = recipe.task(task).config
        path = f"tasks.{_key(task)}"
        lines += [
            "",
            f"[{path}]",
            *_table(f"tasks.{task}", config.model_dump(mode="json"), _under(recipe, task) | sources),
        ]
        lines += [f"# {line}" for line in _budgets(config)]
    return "\n".join(lines) + "\n"


def _check_needs(recipe: Recipe) -> None:
    """Raise InputError if the encoder cannot do what the method needs, or one of both takes no clips."""
    method, encoder = recipe.method_class(), recipe.encoder_class()
    if method.encoder_needs or recipe.input.frames > 1:
        with torch.device("meta"):
            sizes = encoder.sizes_only(recipe.encoder_config, **_image(recipe))
        check_method_needs(method, sizes, recipe.encoder)


def _image(recipe: Recipe) -> dict[str, int]:
    """Sizes of the images that an encoder is built for; a recipe does not know the dataset's channels."""
    return {
        "image_size": recipe.input.image_size,
        "in_channels": max(3, len(recipe.input.mean)),
        "frames": recipe.input.frames,
    }


def _owner(name: str) -> str:
    """Who ships a recipe; "" for a file, whose path is its name."""
    return "" if recipe_document.is_file(name) else f" ({recipe_document.owner_of(name)})"


def _under(recipe: Recipe, task: str) -> dict[str, str]:
    """Sources of what the task's protocol sets, by dotted path."""
    protocol = recipe.protocol(task)
    if protocol is None:
        return {}
    paths = [*(path for path, _ in recipe_document.values(protocol.options)), *protocol.sources]
    return {f"tasks.{task}.{path}": recipe_document.source_of(path, protocol.sources) for path in paths}


def _table(path: str, values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            continue
        source = sources.get(f"{path}.{key}", "default" if value is not None else "")
        note = f"  # {source}" if source else ""
        if value is None:
            # A value set to none is printed as a setting, so that the printed recipe resolves to the same recipe.
            is_set = f"{path}.{key}" in sources
            yield f'{_key(key)} = "{NONE}"{note}' if is_set else f"# {key}: {NONE}{note}"
        else:
            yield f"{_key(key)} = {_toml(value)}{note}"
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield f"[{'.'.join(map(_key, [*path.split('.'), key]))}]"
            yield from _table(f"{path}.{key}", value, sources)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _derived(table: str, recipe: Recipe) -> list[str]:
    if not recipe.method_class().pretrains:
        return []
    if table == "pretrain":
        return list(_arithmetic(recipe.pretrain))
    return list(_masked_lines(recipe)) if table == "method" else []


def _budgets(config: Config) -> Iterator[str]:
    """The arithmetic of every training in a task's options."""
    for key in type(config).model_fields:
        value = getattr(config, key)
        if isinstance(value, TrainConfig):
            yield from (f"{key}: {line}" for line in _arithmetic(value))


def _arithmetic(train: TrainConfig) -> Iterator[str]:
    yield train.lr_arithmetic()
    rule = train.schedule
    if rule.convention in ("simmim", "spark") and train.lr_divisor:
        used = {"warmup_lr": rule.has_warmup, "min_lr": rule.kind == "cosine"}
        for key in (key for key, counts in used.items() if counts):
            rate = getattr(rule, key)
            yield f"{key} scales as lr: {rate:g} x {train.batch_size} / {train.lr_divisor} = {rate * train.lr_scale:g}"
    if rule.kind == "multistep":
        unit = "step" if rule.milestone_steps else "epoch"
        for count, milestone in enumerate(rule.milestone_steps or rule.milestones, 1):
            rate = train.lr * rule.gamma**count
            yield f"from {unit} {milestone:g}: lr x {rule.gamma:g}{f'^{count}' * (count > 1)} = {rate:g}"


def _masked_lines(recipe: Recipe) -> Iterator[str]:
    """How many patches of how many the method masks, at each image size of the training."""
    sizes = recipe.pretrain.image_sizes
    if not sizes:
        yield _masked_line(recipe, recipe.input.image_size)
    for size in dict.fromkeys(size for _, size in sizes):
        yield f"at {size} px, {_masked_line(recipe, size)}"


def _masked_line(recipe: Recipe, size: int) -> str:
    """How many patches of how many the method masks at this image size, counted on masks that it draws."""
    method_class, encoder_class = recipe.method_class(), recipe.encoder_class()
    image = _image(recipe)
    try:
        with torch.device("meta"):  # builds the method's parts at once, without weights
            try:
                sizes = encoder_class.sizes_only(recipe.encoder_config, **image)
                method = method_class.masks_only(recipe.method_config, sizes)
            except Exception:  # the method needs more of the encoder than its sizes
                method = method_class(recipe.method_config, encoder_class.build(recipe.encoder_config, **image))
        if size != recipe.input.image_size:
            require_multiple(size, method.encoder.stride, "stride")
            method.set_image_size(size)
        end = _count_masked(method)
        method.progress = 0.0
        start = _count_masked(method)
        return end if start == end else f"{start} at first, {end.removeprefix('mask: ')} at the end"
    except NotSupported:
        return "mask: none"
    except Exception as error:  # a third party's method may need real weights, which is no error of the recipe
        return f"mask: not counted: {' '.join(str(error).split()) or type(error).__name__}"


def _count_masked(method: Method) -> str:
    mask = method.masked_cells(method.sample_mask(MASKS, torch.Generator().manual_seed(0)))
    if mask is None:
        return "mask: no grid"
    counts = mask.flatten(1).sum(1)
    low, high, cells = int(counts.min()), int(counts.max()), mask[0].numel()
    span = f"{low}" if low == high else f"{low} to {high} (of {MASKS} masks drawn)"
    ratio = counts.sum() / mask.numel()
    return f"mask: {span} of {' x '.join(map(str, mask.shape[1:]))} = {cells} patches masked ({ratio:.1%})"
