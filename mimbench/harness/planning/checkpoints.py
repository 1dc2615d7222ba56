"""Checkpoints that a command names: by fingerprint, or by the path of their folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from mimbench import registry
from mimbench.contract import PretrainConfig, Task
from mimbench.errors import InputError, nearest
from mimbench.recipe import document as recipe_document
from mimbench.store.store import CARD, Store, StoredCheckpoint, read_checkpoint

_NOT_TAKEN = ("start", "tensorboard")
"""Options of a pretraining that its checkpoint needs no more: the file it started from, and one of older cards that
shapes nothing."""


def find_checkpoint(results: Path, which: str) -> StoredCheckpoint:
    """The checkpoint that `which` names.

    Args:
        results: the results folder to search.
        which: the folder of a checkpoint, or the beginning of a fingerprint.

    Raises:
        InputError: there is none, there are several, or the checkpoint is damaged.
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
    checkpoint = Store(results, write=False).checkpoint(matching[0])
    if checkpoint is None:
        raise InputError(f"checkpoint {folder / matching[0]} was deleted just now")
    return checkpoint


def method_of(checkpoint: StoredCheckpoint, requested: Sequence[str]) -> list[str]:
    """The method of a checkpoint, as a list of one. Raises InputError if another method was requested."""
    method = checkpoint.card["what"]["method"]["name"]
    if list(requested) not in ([], [method]):
        raise InputError(f"the checkpoint is of method {method!r}, not of {', '.join(requested)}: leave --method out")
    return [method]


def refuse_pretraining(paths: Sequence[str], methods: Sequence[str]) -> None:
    """Raise InputError for a setting that shapes pretraining, since a checkpoint is pretrained already.

    Args:
        paths: settings of the request, such as "pretrain.epochs" or "methods.mae.pretrain.epochs".
        methods: of the request.
    """
    for path in paths:
        general = path
        for method in methods:
            general = general.removeprefix(f"methods.{method}.")
        table, _, key = general.partition(".")
        if table == "pretrain" and not PretrainConfig.is_cosmetic(key):
            raise InputError(f"{path}: leave it out with --checkpoint, which is pretrained already")
        if general == "encoder.weights":
            raise InputError(f"{path}: leave it out with --checkpoint, whose weights replace those of the file")


def with_checkpoint(
    document: recipe_document.Table,
    checkpoint: StoredCheckpoint,
    tasks: Sequence[str] = (),
    settings: Collection[str] = (),
) -> recipe_document.Table:
    """The recipe with the encoder, method, input and (if the card has it) pretrain tables of a checkpoint.

    Data and tasks stay those of the recipe. Only if the card says how the model itself pools its features, a task that
    reads frozen features does so too, unless the recipe or a setting says how, or names a protocol.

    Args:
        tasks: of the request.
        settings: paths that the request sets or varies.
    """
    tables = checkpoint.card["recipe"]
    merged = recipe_document.for_method(document, tables["method"]["name"])
    merged.pop("encoders", None)
    taken = {table: tables[table] for table in ("input", "encoder", "method", "pretrain") if table in tables}
    if "pretrain" in taken:
        taken["pretrain"] = {key: value for key, value in taken["pretrain"].items() if key not in _NOT_TAKEN}
    field = registry.encoders.load(tables["encoder"]["name"]).Config.model_fields.get("weights")
    if field and not field.is_required():  # nor are the weights that its encoder started from
        taken["encoder"] = {key: value for key, value in taken["encoder"].items() if key != "weights"}
    merged |= taken
    pooling = checkpoint.card["what"].get("imported", {}).get("pooling")
    if pooling:
        for task in tasks:
            merged = _with_pooling(merged, task, pooling, settings)
    return merged


def _with_pooling(
    document: recipe_document.Table, task: str, pooling: str, settings: Collection[str]
) -> recipe_document.Table:
    """The recipe with an option `pooling` of a task, if the task has it and nothing says how it is pooled."""
    cls: type[Task] = registry.tasks.load(task)
    chosen = set(document.get("tasks", {}).get(task, {})) | {path.rpartition(".")[2] for path in settings}
    if cls.trains_encoder or "pooling" not in cls.Config.model_fields or chosen & {"pooling", "protocol"}:
        return document
    return recipe_document.put(document, f"tasks.{task}.pooling", pooling)
