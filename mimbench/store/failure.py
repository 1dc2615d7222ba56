"""A failure: a cell that was tried and has no record, with its reason. It goes when the cell succeeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mimbench.errors import InputError
from mimbench.store.files import DAMAGE, fingerprint, write_json


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
    return Path(root) / "failures" / f"{record_id}.json"


def write_failure(path: Path, failure: Failure) -> None:
    """Write a failure with the hash of its content, atomically."""
    body = failure.model_dump(mode="json", by_alias=True)
    write_json(path, {**body, "sha256": fingerprint(body, 64)})


def read_failure(path: Path) -> Failure:
    """Read and check one failure.

    Raises:
        InputError: it is unreadable, altered, or of a schema that this version does not know.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body.pop("sha256") != fingerprint(body, 64):
            raise InputError(f"failure {path} does not match its own sha256: it was altered or damaged; delete it")
        return Failure.model_validate(body)
    except DAMAGE as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError(f"failure {path} is corrupt ({type(error).__name__}: {why}); delete it") from error


def read_failures(root: Path) -> list[Failure]:
    """Every failure noted in a results folder, sorted by id; none where nothing has failed.

    Raises:
        InputError: one is damaged (named).
    """
    return [read_failure(path) for path in sorted((Path(root) / "failures").glob("*.json"))]
