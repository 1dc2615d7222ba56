"""A record: one task on one checkpoint with one seed, and all that is needed to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mimbench.errors import InputError
from mimbench.store.reading import read_body, record_files
from mimbench.store.sealing import write_sealed


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Named(_Part):
    """A plugin and the version of it that ran."""

    name: str
    version: str


class Value(_Part):
    """A metric as measured: `value` in `unit`, over `n` samples, with its range and direction."""

    value: float
    unit: str
    n: int
    low: float
    high: float
    higher_is_better: bool


class Cost(_Part):
    """What a stage took. peak_memory in bytes; None where nothing was trained or the device does not tell."""

    seconds: float
    images_seen: int = 0
    steps: int = 0
    peak_memory: int | None = None
    device: str
    precision: str = "fp32"


class Checkpoint(_Part):
    """The pretraining that a record stands on."""

    fingerprint: str
    weights_sha256: str
    seed: int
    cost: Cost
    loss: list[float] = []
    """Mean loss of each epoch of the pretraining; empty where nothing was trained, and in older records."""


class Record(_Part):
    """schema 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(1, alias="schema")
    id: str
    method: Named
    task: Named
    encoder: Named
    dataset: Named
    """The task's dataset; its version is the fingerprint of its content."""
    protocol: dict[str, Any]
    protocol_fingerprint: str
    departures: dict[str, Any] | None = None
    """Options of the task that differ from its named protocol as shipped, by path, whoever set them. None: not noted,
    in records made before this was."""
    seed: int
    varied: dict[str, Any] = {}
    """What --vary gave this cell, by path."""
    recipe_name: str
    recipe_passed: dict[str, Any]
    recipe: dict[str, Any]
    """As resolved."""
    checkpoint: Checkpoint
    pretraining: str
    """Hash of all that shaped the weights but the seed: equal for the seeds of one mean."""
    metrics: dict[str, Value]
    """The first is the task's primary metric."""
    chance: float
    curves: dict[str, list[float]] = {}
    artifacts: dict[str, str] = {}
    """Paths relative to the results folder."""
    artifacts_sha256: dict[str, str] = {}
    """Hashes of these files, by the same names; empty in records made before they were noted."""
    details: dict[str, Any] = {}
    cost: Cost
    provenance: dict[str, Any]

    @property
    def primary(self) -> tuple[str, Value]:
        return next(iter(self.metrics.items()))

    def as_json(self) -> dict[str, Any]:
        """Plain data, as it stands on disk but for the seal."""
        return self.model_dump(mode="json", by_alias=True)


def write_record(path: Path, record: Record) -> None:
    """Write a record with the hash of its content, atomically."""
    write_sealed(path, record.as_json())


def read_record(path: Path) -> Record:
    """Read and check one record.

    Raises:
        InputError: it is unreadable, altered, or of a schema that this version does not know.
    """
    try:
        return Record.model_validate(read_body(path))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(
            f"record {path} is not a valid record: {where}: {error.errors()[0]['msg']}; restore or delete the file"
        ) from error


def read_records(root: Path) -> list[Record]:
    """Every record below a results folder, or in a folder of records; sorted by id.

    Raises:
        InputError: no such folder, or a damaged record (named).
    """
    return [read_record(path) for path in record_files(root)]
