"""A failure: a cell that was tried and has no record, with its reason. It goes when the cell succeeds."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mimbench.errors import InputError
from mimbench.store.reading import FAILURES
from mimbench.store.sealing import read_sealed, write_sealed


class Failure(BaseModel):
    """schema 1. `id` is that of the record that is missing."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(1, alias="schema")
    id: str
    label: str
    """The cell in words."""
    stage: Literal["pretraining", "task"]
    reason: str
    error: str
    """Class of the exception."""
    traceback: str | None = None
    """Where it is kept, relative to the results folder; None for an error whose message says it all."""
    method: str
    task: str
    seed: int
    varied: dict[str, Any] = {}
    checkpoint: str
    """Fingerprint of the pretraining."""
    recipe_name: str
    recipe_passed: dict[str, Any]
    provenance: dict[str, Any]


def failure_path(root: Path, record_id: str) -> Path:
    return Path(root) / FAILURES / f"{record_id}.json"


def write_failure(path: Path, failure: Failure) -> None:
    """Write a failure with the hash of its content, atomically."""
    write_sealed(path, failure.model_dump(mode="json", by_alias=True))


def read_failure(path: Path) -> Failure:
    """Read and check one failure.

    Raises:
        InputError: it is unreadable, altered, or of a schema that this version does not know.
    """
    try:
        return Failure.model_validate(read_sealed(path, "failure", "delete it"))
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise InputError(f"failure {path} is corrupt (ValidationError: {why}); delete it") from error


def read_failures(files: Iterable[Path], recorded: Container[str] = ()) -> tuple[list[Failure], dict[str, str]]:
    """The failures noted in `files` (see `failure_files`), by id, and {id: what is wrong} of each damaged note.

    Of a cell that failed twice, the last. recorded: ids of records that are there by now: these cells have not failed.
    """
    failures: list[Failure] = []
    damaged: dict[str, str] = {}
    for path in files:
        if path.stem in recorded:
            continue
        try:
            failures.append(read_failure(path))
        except InputError as error:
            damaged[path.stem] = str(error)
    failures.sort(key=lambda failure: (failure.id, str(failure.provenance.get("time"))))
    last = {failure.id: failure for failure in failures if failure.id not in recorded}  # a file may have been renamed
    return list(last.values()), damaged
