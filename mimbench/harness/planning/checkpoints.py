"""Checkpoints that a command names itself: by fingerprint, or by the path of their folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mimbench.contract import PretrainConfig
from mimbench.errors import InputError, nearest
from mimbench.recipe import document as doc
from mimbench.store.store import CARD, Store, StoredCheckpoint, read_checkpoint


def find_checkpoint(results: Path, which: str) -> StoredCheckpoint:
    """The checkpoint that `which` names: a folder, or a fingerprint (or its beginning) in a results folder.

    Raises:
        InputError: there is none, more than one, or it is damaged.
    """
    path = Path(which)
    if (path / CARD).is_file():
        return read_checkpoint(path)
    folder = Path(results) / "checkpoints"
    known = sorted(entry.name for entry in folder.glob("*") if (entry / CARD).is_file() and entry.name[0] != ".")
    matching = [name for name in known if name.startswith(which)] if which else []
    if which in matching:
        matching = [which]
    if len(matching) != 1:
        problem = "several checkpoints begin with" if matching else "there is no checkpoint"
        listed = f": {', '.join(matching)}" if matching else nearest(which, known) if known else "; it holds none"
        raise InputError(f"{problem} {which!r} in {folder}{listed}")
    found = Store(results, write=False).checkpoint(matching[0])
    if found is None:
        raise InputError(f"checkpoint {folder / matching[0]} is gone")
    return found


def method_of(checkpoint: StoredCheckpoint, asked: Sequence[str]) -> list[str]:
    """The one method that a checkpoint is of. Raises InputError where another was asked for."""
    method = checkpoint.card["what"]["method"]["name"]
    if list(asked) not in ([], [method]):
        raise InputError(f"the checkpoint is of method {method!r}, not of {', '.join(asked)}: leave --method out")
    return [method]


def refuse_pretraining(paths: Sequence[str], methods: Sequence[str]) -> None:
    """Raise InputError for a setting that would shape the pretraining, which a given checkpoint has behind it."""
    for path in paths:
        placed = path
        for method in methods:
            placed = placed.removeprefix(f"methods.{method}.")
        table, _, key = placed.partition(".")
        if table == "pretrain" and not PretrainConfig.is_cosmetic(key):
            raise InputError(f"{path}: leave it out with --checkpoint, which is pretrained already")


def with_checkpoint(document: doc.Table, checkpoint: StoredCheckpoint) -> doc.Table:
    """A recipe whose encoder, method, view of images and pretraining, where it is known, are the checkpoint's.

    Data and tasks stay the recipe's.
    """
    tables = checkpoint.card["recipe"]
    kept = doc.for_method(document, tables["method"]["name"])
    kept.pop("encoders", None)
    return kept | {table: tables[table] for table in ("input", "encoder", "method", "pretrain") if table in tables}
