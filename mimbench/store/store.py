"""The results folder: reads and writes what it holds, under leases.

DIR/checkpoints/<fingerprint>/   encoder.safetensors, method.safetensors, checkpoint.json (the card)
DIR/records/<record id>.json     the result of a cell
DIR/failures/<record id>.json    the reason why a cell has no record, from the last attempt
DIR/artifacts/<folder>/          pictures and files of a record or a pretraining
DIR/work/<fingerprint>/          states of an unfinished training, from which it resumes
DIR/work/<record id>/            files of an unfinished task; error.txt is the traceback of a failure
DIR/work/<key>.lease/            who makes something now; <key> is a fingerprint or a record id, see leases.py
DIR/tracks/                      files of trackers such as TensorBoard, if `track` names some
DIR/stages/<fingerprint>.*       what methods fit before training (tokenizers), see stages.py
DIR/jobs/<time>-<key>/           a run that was handed to workers: its request, plan and logs
DIR/features/                    frozen features, shared by all tasks, see features.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from mimbench.errors import InputError
from mimbench.files import file_sha256, naming, remove_abandoned, temporary_prefix, write_atomic
from mimbench.leases import confirm_leases, hold_lease, hold_lease_if_free
from mimbench.store.failure import Failure, failure_path, read_failure, write_failure
from mimbench.store.reading import CHECKPOINTS, FOLDERS, RESULTS, TRACKS
from mimbench.store.record import Record, read_record, write_record
from mimbench.store.sealing import DAMAGE, damage_in_words, is_sealed, seal_card, write_json

WEIGHTS = ("encoder.safetensors", "method.safetensors")
CARD = "checkpoint.json"


@dataclass(frozen=True)
class StoredCheckpoint:
    """A finished pretraining on disk, its hashes already checked."""

    folder: Path
    card: Mapping[str, Any]
    """Content of checkpoint.json. Its keys: `what` (the identity, whose hash is the fingerprint), `recipe`, `seed`,
    `cost`, `provenance`, `fingerprint`, `sha256` (hashes of the two files of weights) and `seal`."""

    @property
    def weights_sha256(self) -> str:
        return self.card["sha256"][WEIGHTS[0]]

    def encoder(self) -> dict[str, Tensor]:
        """The exported encoder's state dict."""
        return load_file(self.folder / WEIGHTS[0])

    def rest(self) -> dict[str, Tensor]:
        """State dict of the method without the exported encoder (decoder, mask token, student)."""
        return load_file(self.folder / WEIGHTS[1])


def read_checkpoint(folder: Path) -> StoredCheckpoint:
    """Read the checkpoint in a folder, and check its hashes. The folder may be outside a results folder.

    Raises:
        InputError: it is damaged.
    """
    advice = f"delete {folder} to pretrain it again"
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if not is_sealed(card):
            raise InputError(f"checkpoint {folder / CARD} is corrupt: the card was altered or damaged; {advice}")
        for name in WEIGHTS:
            if file_sha256(folder / name) != card["sha256"][name]:
                raise InputError(f"checkpoint {folder / name} is corrupt: its sha256 is not the one noted; {advice}")
    except DAMAGE as error:
        raise InputError(f"checkpoint {folder} {damage_in_words(error, advice)}") from error
    return StoredCheckpoint(folder, card)


class Store:
    """A results folder. Writes are atomic. Processes that share a folder hold a lease while they make something."""

    def __init__(self, root: Path, *, write: bool = True) -> None:
        """write: create the folder if needed and check that it is writable. False: it is only read.

        Raises:
            InputError: the folder cannot be made or written, or a folder in it is a link.
        """
        self.root = Path(root)
        if not write:
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise InputError(
                f"results folder {root} cannot be written ({error.strerror}); choose another with --results DIR"
            ) from error
        remove_abandoned(self.root)
        for name in FOLDERS:
            _check_no_link(self.root / name)
            remove_abandoned(self.root / name)

    def checkpoint_path(self, fingerprint: str) -> Path:
        return self.root / CHECKPOINTS / fingerprint

    def checkpoint(self, fingerprint: str) -> StoredCheckpoint | None:
        """The checkpoint with this fingerprint, or None if there is none yet.

        Raises:
            InputError: it exists but is damaged. It is never silently reused or replaced.
        """
        folder = self.checkpoint_path(fingerprint)
        if not folder.exists():
            return None
        checkpoint = read_checkpoint(folder)
        if checkpoint.card.get("fingerprint") != fingerprint:
            raise InputError(
                f"checkpoint {folder} says that it is {checkpoint.card.get('fingerprint')!r}; "
                f"delete {folder} to pretrain it again"
            )
        return checkpoint

    def has_checkpoint(self, fingerprint: str) -> bool:
        """Whether a checkpoint exists, valid or damaged."""
        return (self.checkpoint_path(fingerprint) / CARD).exists()

    def save_checkpoint(
        self,
        fingerprint: str,
        encoder: Mapping[str, Tensor],
        rest: Mapping[str, Tensor],
        card: Mapping[str, Any],
        *,
        replace: bool = False,
    ) -> StoredCheckpoint:
        """Write weights and card together: the folder is complete, or does not appear.

        The caller holds the lease of the training. replace: an existing checkpoint is deleted once this one is written.
        """
        parent = self.checkpoint_path(fingerprint).parent
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f".{fingerprint}.*"):  # left by a process that was killed while writing
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=temporary_prefix(fingerprint)))
        try:
            for name, state in zip(WEIGHTS, (encoder, rest), strict=True):
                tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
                with naming(parent / fingerprint / name):
                    save_file(tensors, temporary / name)
            hashes = {name: file_sha256(temporary / name) for name in WEIGHTS}
            card = seal_card({**card, "fingerprint": fingerprint, "sha256": hashes})
            write_json(temporary / CARD, card)
            temporary.chmod(0o755)
            confirm_leases()
            if replace and (parent / fingerprint).exists():
                # os.rename replaces only an empty folder, so the old checkpoint is moved away first. If this process
                # is killed here, the next save deletes what it moved.
                os.rename(parent / fingerprint, temporary.with_name(f"{temporary.name}.old"))
            os.rename(temporary, parent / fingerprint)
            shutil.rmtree(temporary.with_name(f"{temporary.name}.old"), ignore_errors=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return StoredCheckpoint(parent / fingerprint, card)

    @contextmanager
    def lease(self, key: str, what: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lease `key`, alone among all processes. If another process holds it, call `waiting` once and wait.

        See `mimbench.leases`. what: what this process does meanwhile, for people.
        """
        with hold_lease(self.root / "work" / key, what, waiting):
            self.look_again()
            yield

    @contextmanager
    def lease_if_free(self, key: str, what: str) -> Iterator[bool]:
        """As `lease`, without waiting: yields False if another process holds the lease, else True."""
        with hold_lease_if_free(self.root / "work" / key, what) as is_held:
            if is_held:
                self.look_again()
            yield is_held

    def look_again(self) -> None:
        """See what other machines have written so far.

        NFS may show a folder as it was a minute ago (acdirmax), and so not the result of whoever held a lease before.
        Its client looks again when it changes the folder itself.
        """
        for name in ("", *RESULTS):
            with suppress(OSError):  # not there yet, or a full disk
                handle, path = tempfile.mkstemp(dir=self.root / name, prefix=temporary_prefix("look"))
                os.close(handle)
                os.unlink(path)

    @property
    def tracks(self) -> Path:
        """The folder for files of trackers, which stay when the training is done."""
        return self.root / TRACKS

    def work(self, key: str) -> Path:
        """The work folder of an unfinished training (key: its fingerprint) or task (key: the record id); creates it.

        Raises:
            InputError: the folder is a link.
        """
        folder = self.root / "work" / key
        _check_no_link(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard_work(self, key: str) -> None:
        confirm_leases()
        shutil.rmtree(self.root / "work" / key, ignore_errors=True)

    def artifact(self, folder: str, name: str) -> Path:
        """Path of a picture or file of a record or a pretraining."""
        return self.root / "artifacts" / folder / name

    def save_artifact(self, folder: str, name: str, content: bytes) -> str:
        """Write a picture or file; returns its path relative to the results folder.

        Raises:
            InputError: a folder on the path is a link, which may lead anywhere.
        """
        path = self.artifact(folder, name)
        _check_no_link(path.parent.parent)
        _check_no_link(path.parent)
        # Temporary files lie together in one folder, where the next run finds those of a killed process.
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content, temporaries=path.parent.parent)
        return str(path.relative_to(self.root))

    def record(self, record_id: str) -> Record | None:
        """The record with this id, or None. Raises InputError if it is damaged, or if its file was renamed."""
        path = self.record_path(record_id)
        if not path.exists():
            return None
        record = read_record(path)
        if record.id != record_id:
            raise InputError(f"record {path} is that of {record.id}: its file was renamed; restore or delete the file")
        return record

    def save_record(self, record: Record) -> Path:
        """Write a record, and remove the failure of its cell."""
        path = self.record_path(record.id)
        write_record(path, record)
        self.clear_failure(record.id)
        return path

    def clear_failure(self, record_id: str) -> None:
        """Delete the failure, its traceback and the work folder of a cell that has its record."""
        path = failure_path(self.root, record_id)
        with suppress(OSError, InputError):  # there is none, or it cannot be deleted: next to a record it is ignored
            self._discard_traceback(read_failure(path).traceback or "")
        with suppress(OSError):
            path.unlink()
        self.discard_work(record_id)

    def _discard_traceback(self, relative: str) -> None:
        """Delete a traceback, and its folder if nothing else is in it. relative: its path in the results folder."""
        match = re.fullmatch(r"work/([0-9A-Za-z][^/]*)/error\.txt", relative)
        if match:
            folder = self.root / "work" / match[1]
            _check_no_link(folder)
            (folder / "error.txt").unlink(missing_ok=True)
            folder.rmdir()

    def save_failure(self, failure: Failure) -> Path:
        path = failure_path(self.root, failure.id)
        write_failure(path, failure)
        return path

    def record_path(self, record_id: str) -> Path:
        return self.root / "records" / f"{record_id}.json"


def _check_no_link(folder: Path) -> None:
    """Raise InputError when a folder inside a results folder is a link: nothing is written through it."""
    if folder.is_symlink():
        raise InputError(
            f"{folder} is a link to {os.readlink(folder)}, and nothing is written through links inside a results "
            "folder; replace it by a folder, or choose another results folder with --results DIR"
        )
