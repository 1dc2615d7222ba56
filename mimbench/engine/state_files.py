"""The state of an unfinished training on disk.

FOLDER/step_<N>.pth    weights, optimizer and position after N optimizer steps
FOLDER/step_<N>.json   the hash of that file and the training's identity, sealed by its own; written last

The newest two are kept. A file whose hash differs, or that belongs to another training, is not read; the one before it
is used instead. Only tensors and plain values are read (`weights_only`), so a file that somebody else prepared cannot
run code.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mimbench.advice import is_out_of_memory
from mimbench.errors import InputError
from mimbench.files import file_sha256, is_unreadable, open_atomic
from mimbench.leases import confirm_leases
from mimbench.store.sealing import DAMAGE, read_sealed, write_sealed

STATES = "step_*.json"
"""Pattern of the names of all cards."""


@dataclass(frozen=True)
class Position:
    """How far a saved training is."""

    path: Path
    steps: int
    """Optimizer steps done."""
    epochs: float
    """Epochs done, with the fraction of the current one."""
    sha256: str
    identity: str
    """Names its training among all others."""


def save_state(folder: Path, state: Mapping[str, Any], *, steps: int, epochs: float, identity: str = "") -> Path:
    """Write a state of tensors and plain values, then delete all others except for the one before it.

    States of more steps are deleted too: if they were valid, the training would have resumed from them.

    Raises:
        OSError, RuntimeError: the state cannot be written (RuntimeError is torch's for a full disk). Earlier ones stay.
    """
    path = folder / f"step_{steps}.pth"
    with open_atomic(path) as stream:
        torch.save(dict(state), stream)
    body = {"steps": steps, "epochs": epochs, "file_sha256": file_sha256(path), "identity": identity}
    write_sealed(path.with_suffix(".json"), body)
    before = next((card for card in _cards(folder) if _steps(card) < steps), path)
    confirm_leases()
    # Cards are deleted first, since a state without its card is ignored.
    for old in sorted(folder.glob("step_*"), key=lambda file: file.suffix):
        if old.stem not in (path.stem, before.stem) and not old.is_dir():
            old.unlink(missing_ok=True)
    return path


def newest_valid_state(folder: Path) -> Position | None:
    """The newest state that matches its hash, or None."""
    return next(_valid_states(folder, lambda problem: None), None)


def load_state(
    folder: Path, report: Callable[[str], None] = lambda problem: None, *, identity: str = ""
) -> tuple[Position, dict[str, Any]] | None:
    """The newest valid state of `identity`, with its content (tensors on the CPU).

    `report` is called with a line per state that is not used.
    """
    for position in _valid_states(folder, report):
        if position.identity != identity:
            report(f"{position.path} is the state of another training and not used")
            continue
        try:
            return position, torch.load(position.path, map_location="cpu", weights_only=True)
        except (*DAMAGE, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            if is_unreadable(error) or is_out_of_memory(error):
                raise
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            report(f"{position.path} is not the state of a training and is not used ({why})")
    return None


def amount_done(folder: Path, unit: str = "epoch") -> float:
    """Epochs or steps, by `unit`, that a training in `folder` has done if it is resumed; 0 if it would start."""
    position = newest_valid_state(folder)
    if position is None:
        return 0.0
    return position.steps if unit == "step" else position.epochs


def _valid_states(folder: Path, report: Callable[[str], None]) -> Iterator[Position]:
    for card in _cards(folder):
        path = card.with_suffix(".pth")
        try:
            body = read_sealed(card, "card", "it is not used")
            position = Position(path, int(body["steps"]), float(body["epochs"]), body["file_sha256"], body["identity"])
            damage = None if file_sha256(path) == position.sha256 else "its content does not match its hash"
        except InputError as error:
            if is_unreadable(error.__cause__):
                raise
            damage = str(error)
        except DAMAGE as error:
            if is_unreadable(error):
                raise
            damage = f"{type(error).__name__}: {error}"
        if damage is None:
            yield position
        else:
            report(f"{path} is damaged and not used ({damage})")


def _cards(folder: Path) -> list[Path]:
    """The cards of all states, newest first."""
    cards = [path for path in folder.glob(STATES) if re.fullmatch(r"step_\d+", path.stem)]
    return sorted(cards, key=_steps, reverse=True)


def _steps(card: Path) -> int:
    return int(card.stem.removeprefix("step_"))
