"""Published numbers: loaded from CSV, validated, and matched with records of the same protocol."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from mimbench.display import describe_dataset, describe_task, paper_name
from mimbench.errors import InputError
from mimbench.report.records.frame import to_rows

PACKAGE = "mimbench_published"
FILES = ("results.csv", "ablations.csv")
_MISSING = 0.01
"""Share of the training images that an epoch may leave out: the last incomplete batch, and damaged files."""
NO_EQUAL = "-"
_SHOWN = 4
"""Most settings that a reason names."""
LAST_EPOCH = "official scripts print the best epoch's score, mimbench the last epoch's"


class Published(BaseModel):
    """One number that a paper or its repository reports."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    paper: str = Field(min_length=1)
    """Who reports it: a paper, or a repository."""
    source: str
    """Where in it: table, file."""
    reported: Literal["own", "repro", "re-eval", "quoted"]
    """own: by the method's authors; repro: run again by others; re-eval: official weights; quoted: taken over."""
    method: str = Field(min_length=1)
    encoder: str = Field(min_length=1)
    params_m: float | None = Field(None, gt=0)
    """Parameters, millions."""
    pretrain_data: str
    epochs: int | None = Field(None, gt=0)
    """Of pretraining; None: not stated."""
    resolution: int | None = Field(None, gt=0)
    """Side of the images in fine-tuning or evaluation, px; None: not stated."""
    task: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    protocol: str = ""
    """Name of the task's protocol in mimbench that is the same, and the options that depart from it, as the frame's
    `protocol_name`; empty: none is, and nothing is compared."""
    metric: str = Field(min_length=1)
    """As the task calls it."""
    unit: Literal["percent", "hours", "times"]
    """times: as many times that of another entry, which `detail` names."""
    value: float = Field(ge=0)
    detail: str = ""
    doubt: str = ""
    """Why the number or its labels are not certain; empty: no reason known."""
    study: str = ""
    """The ablation it belongs to."""
    setting: str = ""
    """What that ablation keeps fixed."""
    variant: str = ""
    """What it varies."""
    same: str = ""
    """Settings that are this variant in mimbench, path=value; "-": mimbench has none."""

    @field_validator("params_m", "epochs", "resolution", mode="before")
    @classmethod
    def _read_empty_as_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("value")
    @classmethod
    def _in_range(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("unit") == "percent" and value > 100:
            raise ValueError(f"{value:g} percent is more than all")
        return value

    @field_validator("same")
    @classmethod
    def _pairs(cls, value: str) -> str:
        if value != NO_EQUAL and not all("=" in pair for pair in value.split()):
            raise ValueError(f"settings are path=value, separated by spaces, or {NO_EQUAL!r}; not {value!r}")
        return value


@dataclass(frozen=True)
class Match:
    """The published number for a record, or why there is none."""

    number: Mapping[str, Any] | None
    reason: str = ""


@functools.cache
def load_published() -> pd.DataFrame:
    """All published numbers: one row each, columns as the fields of `Published`. Needs no network.

    Raises:
        InputError: a row that is not valid, with its file and line.
    """
    rows = [row for name in FILES for row in read_published(files(PACKAGE) / name)]
    table = pd.DataFrame([row.model_dump() for row in rows], columns=list(Published.model_fields))
    return table.astype({"epochs": "Int64", "resolution": "Int64"})


@functools.cache
def published_rows() -> tuple[Mapping[str, Any], ...]:
    """All published numbers as dictionaries; missing values are None."""
    return tuple(to_rows(load_published()))


@functools.cache
def load_author_numbers(method: str | None = None) -> tuple[Mapping[str, Any], ...]:
    """What authors report of their method under a protocol that mimbench has: what `find_published` searches.

    Args:
        method: a plugin's name; None for the numbers of all methods.
    """
    return tuple(
        row
        for row in published_rows()
        if row["reported"] == "own" and row["protocol"] and method in (None, to_plugin_name(row["method"]))
    )


def format_source(number: Mapping[str, Any]) -> str:
    """Paper and place of a number, and the doubt about it if there is one."""
    return "; ".join(filter(None, (f"{number['paper']}, {number['source']}", number["doubt"])))


def read_published(path: Traversable) -> list[Published]:
    """The rows of one CSV file, validated.

    Raises:
        InputError: file:line of a row that is not valid, or of a second number to compare with the same records.
    """
    entries: list[Published] = []
    lines: dict[tuple[Any, ...], int] = {}
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
    for row in reader:
        where = f"{path}:{reader.line_num}"
        if None in row or None in row.values():
            raise InputError(f"{where}: as many fields are needed as in the header, {len(reader.fieldnames or ())}")
        try:
            entry = Published.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        if entry.protocol:
            line = lines.setdefault(_key(entry), reader.line_num)
            if line != reader.line_num:
                raise InputError(f"{where}: line {line} already is the number to compare under this protocol")
        entries.append(entry)
    return entries


def parse_settings(same: str) -> dict[str, Any]:
    """{path: value} of `Published.same`."""
    pairs = [pair.split("=", 1) for pair in same.split() if same != NO_EQUAL]
    return {path: _plain(value) for path, value in pairs}


Condition = tuple[str, Callable[[Mapping[str, Any]], bool], Callable[[], str]]
"""What is compared, whether a published row has the record's, and the record's in words."""


def find_published(record: Mapping[str, Any], published: Iterable[Mapping[str, Any]]) -> Match:
    """The authors' own number for a record: the same method, encoder, epochs, protocol, data and settings.

    Args:
        record: a row of a frame.
        published: rows of `load_published`, as dictionaries, see `to_rows`.
    """
    named = [row for row in published if to_plugin_name(row["method"]) == record["method"]]
    if not named:
        return Match(None, f"no number of {record['method']} is stored")
    for what, holds, describe in conditions_of(record):
        named = [row for row in named if row["reported"] == "own" and holds(row)]
        if not named:
            return Match(None, f"no published number has the {what} of these records ({describe()})")
    named = [row for row in named if row["same"] != NO_EQUAL]
    if not named:
        return Match(None, "mimbench has no such variant")
    # Last, because it imports torch: only for records that agree with a number in all else.
    from mimbench.report.published.settings import find_departures

    departed = [find_departures(record, parse_settings(row["same"])) for row in named]
    for row, paths in zip(named, departed, strict=True):
        if not paths:
            return Match(row)
    return Match(None, f"no published number has the settings of these records ({_listed(min(departed, key=len))})")


def conditions_of(record: Mapping[str, Any]) -> tuple[Condition, ...]:
    """What a number of the same method must share with a record, apart from settings."""
    sets_size = describe_task(record["task"]).image_size == "recipe"
    # A folder with some of a dataset's classes is the same dataset in a record; its number of images differs.
    test_images = describe_dataset(record["dataset"]).test_images
    return (
        (
            "metric",
            lambda row: (row["task"], row["metric"]) == (record["task"], record["metric"]),
            lambda: f"{record['task']} {record['metric']}",
        ),
        ("dataset", lambda row: row["dataset"] == paper_name(record["dataset"]), lambda: str(record["dataset"])),
        (
            "protocol",
            lambda row: bool(row["protocol"]) and row["protocol"] == record["protocol_name"],
            lambda: record["protocol_name"] or "a protocol without a name",
        ),
        ("encoder", lambda row: row["encoder"] == record["backbone"], lambda: str(record["backbone"])),
        (
            "pretraining data",
            lambda row: row["pretrain_data"] == _paper_name(record["pretrain_dataset"]),
            lambda: str(record["pretrain_dataset"]),
        ),
        (
            "epochs",
            lambda row: None is not row["epochs"] == record["pretrain_epochs"] and record["final"],
            lambda: describe_epochs(record),
        ),
        (
            "image size",
            lambda row: not sets_size or row["resolution"] == _image_size(record),
            lambda: f"{_image_size(record)} px",
        ),
        ("test images", lambda row: test_images in (None, record["n"]), lambda: f"{record['n']:,}"),
        (
            "pretraining images",
            lambda row: _has_all_pretraining_images(record),
            lambda: f"{_images_per_epoch(record):,.0f} per epoch",
        ),
    )


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _image_size(record: Mapping[str, Any]) -> int | None:
    """Side of the images that the task saw: fine-tuning may set another than the pretraining's."""
    size: int | None = json.loads(record["protocol_json"]).get("input", {}).get("image_size", record["image_size"])
    return size


def _has_all_pretraining_images(record: Mapping[str, Any]) -> bool:
    expected = describe_dataset(record["pretrain_dataset"]).train_images
    return expected is None or _images_per_epoch(record) >= (1 - _MISSING) * expected


def _images_per_epoch(record: Mapping[str, Any]) -> float:
    """Images that each epoch of the pretraining saw."""
    return float(record["pretrain_images"] / record["pretrain_epochs"])


def select_matching(row: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of a frame that measured what a published row did."""
    return [record for record in records if find_published(record, [row]).number is not None]


def to_plugin_name(name: str) -> str:
    """A paper's name for a method as plugins are called: "MoCo v3" -> "moco-v3"."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.replace("+", "plus")).lower().split())


def describe_epochs(record: Mapping[str, Any]) -> str:
    """Of a row of a frame: "800 epochs", "epoch 100 of 800" or "step 500 of 1000"; an imported one's are unknown."""
    unit, length, at = "epoch", record["pretrain_epochs"], record["at_epoch"]
    if record["step_budget"] is not None:
        unit, length, at = "step", record["step_budget"], record["at_step"]
    if length is None:
        return "unknown epochs"
    return f"{int(length)} {unit}s" if record["final"] else f"{unit} {int(at)} of {int(length)}"


def _paper_name(dataset: str | None) -> str | None:
    return paper_name(dataset) if dataset else dataset


def _key(entry: Published) -> tuple[Any, ...]:
    return (
        entry.method,
        entry.encoder,
        entry.pretrain_data,
        entry.epochs,
        entry.resolution,
        entry.task,
        entry.dataset,
        entry.protocol,
        entry.metric,
        *((entry.study, entry.setting, entry.variant) if entry.study else ()),
    )


def _plain(text: str) -> Any:
    try:
        return None if text == "none" else json.loads(text)
    except ValueError:
        return text
