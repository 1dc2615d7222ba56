"""The results folder as the ranks of one run share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mimbench.contract import Method
from mimbench.engine.ranks import on_first_rank
from mimbench.harness.planning.weights import non_encoder_state
from mimbench.store.store import Store, StoredCheckpoint


class SharedStore:
    """A Store that rank 0 reads and writes for all ranks. All ranks call each method, and get the same result."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextmanager
    def hold_lease(self, key: str, what: str) -> Iterator[bool]:
        """Hold the lease `key` among all runs. Yields False, without waiting, if another run holds it.

        what: what this run does meanwhile, for people.
        """
        with ExitStack() as stack:
            yield self._enter_lease(stack, key, what)

    @on_first_rank
    def _enter_lease(self, stack: ExitStack, key: str, what: str) -> bool:
        return stack.enter_context(self._store.lease_if_free(key, what))

    @on_first_rank
    def checkpoint(self, fingerprint: str) -> StoredCheckpoint | None:
        """The checkpoint, or None if there is none. Raises InputError if it is damaged."""
        return self._store.checkpoint(fingerprint)

    @on_first_rank
    def have_checkpoints(self, fingerprints: Sequence[str]) -> list[bool]:
        """For each fingerprint, whether there is a checkpoint, valid or damaged."""
        return [self._store.has_checkpoint(fingerprint) for fingerprint in fingerprints]

    @on_first_rank
    def save_checkpoint(self, fingerprint: str, method: Method, card: Mapping[str, Any], *, replace: bool) -> None:
        """Save the weights of a method. replace: overwrite a checkpoint with this fingerprint."""
        encoder = method.exported_encoder().state_dict()
        self._store.save_checkpoint(fingerprint, encoder, non_encoder_state(method), card, replace=replace)

    @on_first_rank
    def discard_artifact(self, folder: str, name: str) -> None:
        self._store.artifact(folder, name).unlink(missing_ok=True)

    @on_first_rank
    def discard_work(self, key: str) -> None:
        """Remove a work folder. Does nothing if there is none."""
        self._store.discard_work(key)
