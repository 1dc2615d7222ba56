"""What a display file holds, and how it is read and checked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mimbench.errors import InputError, nearest
from mimbench.toml import read_toml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_WHAT = "display file"
T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True)
class MethodDisplay:
    """How a method is drawn. What is empty follows from the method's name."""

    label: str = ""
    """Its name in papers: "SimMIM"."""
    colour: str = ""
    """Of lines and bars: "#rrggbb"."""
    marker: str = ""
    """Of points, as matplotlib names it."""
    is_control: bool = False
    """Whether it is a reference and no MIM method; controls are drawn first."""
    masked_patches: str = ""
    """Option that counts the masked patches of an image. Tables show its share of all patches as the mask ratio."""
    mask_ratio: str = ""
    """What tables show as the mask ratio of a method that has neither that option nor one of the name mask_ratio. Names
    of options in braces become their values: "{targets} blocks"."""


@dataclass(frozen=True)
class MetricDisplay:
    """How a metric is called in print."""

    label: str
    """On an axis, without the unit: "Top-1 accuracy"."""
    unit: str | None = None
    """Replaces the metric's unit on an axis; "": no unit is shown."""
    is_headline: bool = False
    """Whether tables show it by default, as they show each task's primary metric."""
    column: str = ""
    """The head of its column in a table, without the task: "5-shot top-1". What follows a "^" is raised: "AP^box". "":
    the task's label and the metric's."""


@dataclass(frozen=True)
class PictureKind:
    """A kind of plot that collects one artifact of each record."""

    artifact: str
    """The picture's key in `TaskResult.artifacts`."""
    shared_row: str = ""
    """What the upper of its two rows of images shows, which is equal for all methods ("Ground truth"): drawn once, with
    the lower row of each method below it. "": each picture is drawn as it is."""


@dataclass(frozen=True)
class CurveKind:
    """A kind of plot that shows a curve of each record, such as a ROC curve."""

    x: str
    """Key of the values along the horizontal axis in `TaskResult.curves`."""
    y: str
    """The same for the vertical axis."""
    x_label: str
    y_label: str
    log_x: bool = False
    """Whether the horizontal axis is logarithmic."""
    log_y: bool = False
    diagonal: str = ""
    """What the line y = x shows, such as "chance"; "": it is not drawn."""


@dataclass(frozen=True)
class RelativeErrors:
    """A derived table: errors under several conditions, each relative to a baseline's errors.

    The task records accuracies in percent: one curve per condition, named `curves` followed by the condition, and the
    metric `clean` without any condition.
    """

    title: str
    """Of the mean over conditions: "mCE"."""
    curves: str
    clean: str
    source: str
    """The paper that defines it."""
    baseline: str = ""
    """The method that is compared with unless another is chosen; "": one has to be chosen."""


@dataclass(frozen=True)
class TaskDisplay:
    """How the results of a task are shown."""

    label: str = ""
    """Its name in papers: "Linear probe"."""
    image_size: Literal["recipe", "protocol"] = "protocol"
    """What sets the size of the task's images; published numbers are compared at equal size if the recipe does."""
    metrics: Mapping[str, MetricDisplay] = field(default_factory=dict)
    """By metric. In a name with "*" it matches any text, which replaces the "*" of the label."""
    pictures: Mapping[str, PictureKind] = field(default_factory=dict)
    """By kind of plot."""
    curves: Mapping[str, CurveKind] = field(default_factory=dict)
    """By kind of plot."""
    plots: Mapping[str, str] = field(default_factory=dict)
    """Kinds of plots that need this task's curves, with the options of `mimbench run` that record them."""
    reference_curves: Mapping[str, Literal["dotted", "dashed"]] = field(default_factory=dict)
    """Curves "METRIC, NAME" that hold for every method, by NAME, with the line that shows them."""
    relative_errors: Mapping[str, RelativeErrors] = field(default_factory=dict)
    """Derived tables, by the name under which `mimbench derive` prints them."""


@dataclass(frozen=True)
class DatasetDisplay:
    """How papers call a dataset, and how large the whole dataset is."""

    label: str = ""
    train_images: int | None = None
    test_images: int | None = None


@dataclass(frozen=True)
class DisplayFile:
    """One display file; its keys are names of plugins."""

    methods: Mapping[str, MethodDisplay] = field(default_factory=dict)
    tasks: Mapping[str, TaskDisplay] = field(default_factory=dict)
    datasets: Mapping[str, DatasetDisplay] = field(default_factory=dict)


def read_display(path: Path) -> DisplayFile:
    """Read and check one display file.

    Raises:
        InputError: the file is not valid TOML, or a key or a value in it is not one of those above.
    """
    content = read_toml(path, _WHAT)
    kinds: dict[str, Any] = {"methods": MethodDisplay, "tasks": TaskDisplay, "datasets": DatasetDisplay}
    _check_keys(content, kinds, f"{_WHAT} {path}")
    tables = {
        kind: {
            name: _read_entry(kinds[kind], values, f"{_WHAT} {path}, [{kind}.{name}]")
            for name, values in _as_table(entries, f"{_WHAT} {path}, [{kind}]").items()
        }
        for kind, entries in content.items()
    }
    return DisplayFile(**tables)


_NESTED: dict[str, Any] = {
    "metrics": MetricDisplay,
    "pictures": PictureKind,
    "curves": CurveKind,
    "relative_errors": RelativeErrors,
}
"""Fields of a TaskDisplay that hold nested tables."""
_Check = tuple[str, Callable[[Any], bool]]
"""What a value must be, in words, and as a predicate."""
_TEXT: _Check = ("text", lambda value: isinstance(value, str))
_TABLE: _Check = ("a table", lambda value: isinstance(value, dict))
_BY_TYPE: dict[str, _Check] = {
    "str": _TEXT,
    "str | None": _TEXT,
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int | None": ("a whole number", lambda value: type(value) is int),  # not a bool
}
_BY_NAME: dict[str, _Check] = {
    "colour": (
        'a colour such as "#0173b2"',
        lambda value: isinstance(value, str) and bool(re.fullmatch("#[0-9a-fA-F]{6}", value)),
    ),
    "marker": ("one character", lambda value: isinstance(value, str) and len(value) == 1),
    "image_size": ('"recipe" or "protocol"', lambda value: value in ("recipe", "protocol")),
    "reference_curves": (
        'a table of "dotted" or "dashed"',
        lambda value: isinstance(value, dict) and all(line in ("dotted", "dashed") for line in value.values()),
    ),
    "plots": (
        "a table of texts",
        lambda value: isinstance(value, dict) and all(isinstance(text, str) for text in value.values()),
    ),
}


def _read_entry(cls: type[T], values: Any, where: str) -> T:
    values = dict(_as_table(values, where))
    fields = {each.name: each for each in dataclasses.fields(cls)}
    _check_keys(values, fields, where)
    for name, value in values.items():
        words, is_valid = _BY_NAME.get(name) or _BY_TYPE.get(str(fields[name].type)) or _TABLE
        if not is_valid(value):
            raise InputError(f"{where}: {name} must be {words}, not {value!r}")
        if cls is TaskDisplay and name in _NESTED:
            values[name] = {
                key: _read_entry(_NESTED[name], each, f"{where} {name}.{key}") for key, each in value.items()
            }
    missing = [name for name, each in fields.items() if _is_required(each) and name not in values]
    if missing:
        raise InputError(f"{where}: {missing[0]} is missing")
    return cls(**values)


def _is_required(entry: dataclasses.Field[Any]) -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def _as_table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: must be a table, not {value!r}")
    return value


def _check_keys(values: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, known)}")
