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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from mimbench import registry
from mimbench.display_file import DatasetDisplay, DisplayFile, MethodDisplay, MetricDisplay, TaskDisplay, read_display
from mimbench.errors import InputError, nearest

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
    "pretrain.base_lr": "Base learning rate",
    "pretrain.batch_size": "Batch size",
    "pretrain.data_share": "Share of the data",
    "encoder.patch_size": "Patch size",
    "pretrain.at_step": "Step",
    "at_epoch": "Epoch",
    "at_step": "Step",
}
"""Fields of tables and recipe paths, and their names in print."""
_labels: ContextVar[Mapping[str, str]] = ContextVar("_labels", default=MappingProxyType({}))


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
        if plot in display.plots or plot in display.pictures or plot in display.curves:
            return f"mimbench run --method METHOD --task {name} {display.plots.get(plot, '')}".rstrip()
    return "mimbench run --method METHOD --task TASK"


def _file_for(kind: registry.Registry, name: str) -> DisplayFile:
    """The display file of the package that registers a plugin; an empty one if there is none."""
    packages = _packages(kind)
    return _read_package(packages[name]) if name in packages else DisplayFile()


@functools.cache
def _packages(kind: registry.Registry) -> dict[str, str]:
    """{name of a plugin: top-level package that it is imported from}."""
    return {plugin.name: re.split(r"[.:]", plugin.target)[0] for plugin in kind.overview()}


@functools.cache
def _read_package(package: str) -> DisplayFile:
    try:
        spec = find_spec(package)  # of a top-level package: this imports nothing
    except (ImportError, ValueError):
        spec = None
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / FILE
        if path.is_file():
            return read_display(path)
    return DisplayFile()
