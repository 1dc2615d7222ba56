"""Unfinished trainings in a results folder: which one to go on with, and which code began it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from mimbench.engine.state_files import STATES, epochs_done
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.planning.code import Code, changes
from mimbench.store.sealing import DAMAGE, fingerprint, write_json
from mimbench.store.store import Store


def work_key(store: Store, left: Sequence[Pretraining]) -> str:
    """The key of the work folder to train in: `left` are the epochs of one training that have no checkpoint yet.

    An interrupted training that has already passed one of these epochs cannot give it. A second folder is used then.
    """
    epochs = [one.epoch for one in left if one.epoch]
    keys = work_keys(left[0].training)
    for key in keys:
        done = epochs_done(store.root / "work" / key)
        if all(done < epoch for epoch in epochs) or epochs == [done]:
            return key
    store.discard_work(keys[-1])
    return keys[-1]


def work_keys(training: str) -> tuple[str, str]:
    """Keys of the two work folders that a training may have."""
    return training, fingerprint([training, "once more"])


def discard_unfinished(store: Store, training: str) -> None:
    """Remove the states of a training that is finished or starts anew."""
    for key in work_keys(training):
        store.discard_work(key)


def compare_code(store: Store, key: str, code: Code) -> Iterable[str]:
    """Note which plugins' code starts a training; return a line per plugin that was edited since it was interrupted.

    Trainings of the method or task below that folder (a tokenizer's) count as part of it.
    """
    path = store.work(key) / "plugins.json"
    if not (path.exists() and any(path.parent.rglob(STATES))):
        write_json(path, {"plugins": code})
        return []
    try:
        return list(changes(json.loads(path.read_text(encoding="utf-8")), code, "this training began"))
    except DAMAGE:
        return []
