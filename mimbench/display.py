"""How plugins are shown: labels, colours, headline metrics, kinds of pictures, derived tables.

A package that registers plugins may hold a file `display.toml` in its top-level folder (see `methods/display.toml`).
The file describes plugins that the same package registers, so that no two packages describe one plugin. It is located
and read without an import of the package: tables and plots of records need neither torch nor the plugin. A plugin
without an entry is shown under its registered name.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mimbench import registry
from mimbench.errors import InputError, nearest
from mimbench.toml import read_toml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FILE = "display.toml"
_SETTINGS = {
    "method": "Method",
    "encoder": "Encoder",
    "task": "Task",
    "metric": "Metric",
    "seed": "Seed",
    "recipe": "Recipe",
    "dataset": "Dataset",
    "protocol": "Protocol",
    "method.mask_ratio": "Mask ratio",
    "pretrain.epochs": "Epochs",
    "pretrain.at_epoch": "Epoch",
    "pretrain.steps": "Steps",
    "pretrain.at_step": "Step",
    "at_epoch": "Epoch",
    "at_step": "Step",
}
"""Fields of tables and recipe paths, and their names in print."""
_labels: ContextVar[Mapping[str, str]] = ContextVar("_labels", default=MappingProxyType({}))
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
class _File:
    """One display file; its keys are names of plugins."""

    methods: Mapping[str, MethodDisplay] = field(default_factory=dict)
    tasks: Mapping[str, TaskDisplay] = field(default_factory=dict)
    datasets: Mapping[str, DatasetDisplay] = field(default_factory=dict)


def describe_method(name: str) -> MethodDisplay:
    """Raises InputError: the display file of the method's package is damaged."""
    display = _file_for(registry.methods, name).methods.get(name, MethodDisplay())
    label = _labels.get().get(name)
    return dataclasses.replace(display, label=label) if label else display


@contextmanager
def relabelled(labels: Mapping[str, str]) -> Iterator[None]:
    """Within this context, methods have other labels. labels: by the method's name."""
    token = _labels.set(labels)
    try:
        yield
    finally:
        _labels.reset(token)


def check_labels(methods: Iterable[str]) -> None:
    """Raise InputError if a label of `relabelled` is of no method among `methods`."""
    known = set(methods)
    for name in _labels.get():
        if name not in known:
            raise InputError(f"--label {name}=...: no record has a method {name!r}{nearest(name, known)}")


def setting_label(path: str) -> str:
    """A field or recipe path as a table or an axis calls it; its own name if it has no other."""
    return _SETTINGS.get(path, path)


def describe_task(name: str) -> TaskDisplay:
    """Raises InputError: the display file of the task's package is damaged."""
    return _file_for(registry.tasks, name).tasks.get(name, TaskDisplay())


def describe_dataset(name: str) -> DatasetDisplay:
    """Raises InputError: the display file of the dataset's package is damaged."""
    return _file_for(registry.datasets, name).datasets.get(name, DatasetDisplay())


def describe_metric(task: str, name: str) -> MetricDisplay:
    """The metric `name` of a task; its own name is the label if no display file has one."""
    metrics = describe_task(task).metrics
    if name in metrics:
        return metrics[name]
    for pattern, display in metrics.items():
        before, star, after = pattern.partition("*")
        match = re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", name) if star else None
        if match:
            label, column = (text.replace("*", match[1]) for text in (display.label, display.column))
            return dataclasses.replace(display, label=label, column=column)
    return MetricDisplay(name)


def paper_name(dataset: str) -> str:
    """The name that papers use for a dataset plugin; its own name if no display file has one."""
    return describe_dataset(dataset).label or dataset


def described_tasks() -> dict[str, TaskDisplay]:
    """Every installed task that a display file describes, sorted by name."""
    described = {name: describe_task(name) for name in _packages(registry.tasks)}
    return {name: display for name, display in described.items() if display != TaskDisplay()}


def drawing_rank(method: str) -> tuple[int, int, str]:
    """Sort key: controls, then methods that a display file describes in the order of the file, then all others."""
    methods = _file_for(registry.methods, method).methods
    if method not in methods:
        return 2, 0, method
    return 0 if methods[method].is_control else 1, list(methods).index(method), method


def command_for(plot: str) -> str:
    """A command that makes records for a kind of plot that needs the curves or pictures of one task."""
    for name, display in described_tasks().items():
        if plot in display.plots or plot in display.pictures:
            return f"mimbench run --method METHOD --task {name} {display.plots.get(plot, '')}".rstrip()
    return "mimbench run --method METHOD --task TASK"


def _file_for(kind: registry.Registry, name: str) -> _File:
    """The display file of the package that registers a plugin; an empty one if there is none."""
    packages = _packages(kind)
    return _read_package(packages[name]) if name in packages else _File()


@functools.cache
def _packages(kind: registry.Registry) -> dict[str, str]:
    """{name of a plugin: top-level package that it is imported from}."""
    return {plugin.name: re.split(r"[.:]", plugin.target)[0] for plugin in kind.overview()}


@functools.cache
def _read_package(package: str) -> _File:
    try:
        spec = find_spec(package)  # of a top-level package: this imports nothing
    except (ImportError, ValueError):
        spec = None
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / FILE
        if path.is_file():
            return read_display(path)
    return _File()


def read_display(path: Path) -> _File:
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
    return _File(**tables)


_NESTED: dict[str, Any] = {"metrics": MetricDisplay, "pictures": PictureKind, "relative_errors": RelativeErrors}
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
        if name in _NESTED:
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
