"""A record: the result of one cell (one task on one pretraining with one seed), with everything that led to it."""

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
    """What a pretraining or a task took, interrupted runs included."""

    seconds: float
    images_seen: int = 0
    steps: int = 0
    """Optimizer steps; 0 if nothing was trained."""
    peak_memory: int | None = None
    """Bytes; None if nothing was trained, or if the device does not report it."""
    device: str
    precision: str = "fp32"
    compiled: str = ""
    """Which blocks ran compiled, and the form of their attention; "" for none, and in older records."""


class Checkpoint(_Part):
    """The checkpoint that the task ran on."""

    fingerprint: str
    """Of the pretraining: the name of the folder in `checkpoints`."""
    weights_sha256: str
    """Hash of the file encoder.safetensors."""
    seed: int
    cost: Cost
    flops_per_image: float | None = None
    """Of the forward and the backward pass, two per multiplication with addition; counted, not measured. None for
    trainings under 100 steps, if steps differ much, if a step cannot run on the CPU, and in older records. What is
    fitted before, such as a tokenizer, is not counted."""
    patches_per_image: float | None = None
    """Patches that encoders process, teachers included; 0 for convolutional encoders; None as above."""
    loss: list[float] = []
    """Mean loss of each epoch of the pretraining; empty if nothing was trained, and in older records."""
    logs: dict[str, list[float]] = {}
    """Mean of each quantity that the method logs, per epoch; empty in older records."""
    monitored: dict[str, list[tuple[float, float]]] = {}
    """(epochs done, value) of each measurement of a monitor, by its name; empty without monitors."""
    monitor_seconds: float = 0.0
    """What monitors took. `cost.seconds` is without it."""


class Record(_Part):
    """The JSON file of a finished cell, schema 1. docs/concepts.md says which hash answers which question.

    Paths are dotted paths of recipe settings, such as "method.mask_ratio".
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(1, alias="schema")
    id: str
    """METHOD-TASK-sSEED-HASH, the name of the file. The hash is that of the pretraining's fingerprint, the protocol and
    the seed."""
    method: Named
    task: Named
    encoder: Named
    dataset: Named
    """The task's dataset; its version is the fingerprint of its content."""
    protocol: dict[str, Any]
    """Everything in the task that may change the score: task version, options, dataset, input, ..."""
    protocol_fingerprint: str
    """Hash of `protocol`. Records with different ones never share a column of a table."""
    departures: dict[str, Any] | None = None
    """Options of the task that differ from its named protocol as shipped, by path, whoever set them. None in records
    made before this field existed."""
    seed: int
    """Of the pretraining and the task."""
    varied: dict[str, Any] = {}
    """Values of --vary for this cell, by path."""
    recipe_name: str
    recipe_passed: dict[str, Any]
    """The request as the user wrote it: methods, tasks, recipe, seeds, --set, --vary, --checkpoint."""
    recipe: dict[str, Any]
    """As resolved: every setting with its value, in the tables data, input, encoder, method, pretrain and task."""
    checkpoint: Checkpoint
    pretraining: str
    """Hash of everything that shapes the weights except the seed. It is equal for all seeds of one mean."""
    metrics: dict[str, Value]
    """The first is the task's primary metric."""
    chance: float
    """Value of the primary metric for random guesses."""
    curves: dict[str, list[float]] = {}
    """Series of numbers that the task reports, such as the loss of each of its epochs."""
    artifacts: dict[str, str] = {}
    """Pictures and files: paths relative to the results folder, by name."""
    artifacts_sha256: dict[str, str] = {}
    """Hashes of the artifacts, by the same names; empty in records made before this field existed."""
    details: dict[str, Any] = {}
    """Further results of the task, and under "data" how the images were read."""
    cost: Cost
    """Of the task; that of the pretraining is in `checkpoint`."""
    provenance: dict[str, Any]
    """Time, command, commit, package versions, machine, and the code hash of each plugin."""

    @property
    def primary(self) -> tuple[str, Value]:
        return next(iter(self.metrics.items()))

    def as_json(self) -> dict[str, Any]:
        """Plain data: the content of the file without its seal."""
        return self.model_dump(mode="json", by_alias=True)


def write_record(path: Path, record: Record) -> None:
    """Write a record and its seal, atomically."""
    write_sealed(path, record.as_json())


def read_record(path: Path) -> Record:
    """Read and check one record.

    Raises:
        InputError: it is unreadable, altered, or has a schema that this version does not know.
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
        InputError: there is no such folder, or a record is damaged; the message names it.
    """
    return [read_record(path) for path in record_files(root)]
