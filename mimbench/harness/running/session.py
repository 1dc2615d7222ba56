"""What all parts of one run share: the results folder, the device, the console, and what the run has made so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from rich.console import Console

from mimbench.engine.progress import print_line
from mimbench.harness.planning.code import Code, describe_changes
from mimbench.harness.running.provenance import provenance
from mimbench.harness.running.shared_store import SharedStore
from mimbench.harness.running.unfinished import compare_code
from mimbench.store.store import Store


@dataclass
class Session:
    """One command that runs a plan."""

    store: Store
    device: torch.device
    console: Console
    fresh: bool = False
    """Pretrain and measure again, even if a checkpoint or record exists."""
    _made: set[str] = field(default_factory=set)
    """Fingerprints of the checkpoints and ids of the records that this run has made."""
    _printed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        provenance()  # notes the commit now: the source tree may change during a long run

    @cached_property
    def shared(self) -> SharedStore:
        """The results folder, read and written by rank 0 for all ranks."""
        return SharedStore(self.store)

    def accepts(self, key: str) -> bool:
        """Whether an existing checkpoint or record is used. With `fresh`, only those that this run has made."""
        return not self.fresh or key in self._made

    def mark_made(self, key: str) -> None:
        """Remember the fingerprint of a checkpoint, or the id of a record, that this run has written."""
        self._made.add(key)

    def say(self, text: str) -> None:
        print_line(self.console, text)

    def say_changes(self, recorded: object, current: Code, what: str) -> None:
        """Print a line, once per run, for each plugin whose code has changed without a new version.

        Args:
            recorded: the provenance of a record or checkpoint.
            current: the code of the plugins now.
            what: what was done with the old code, such as "the checkpoint was trained".
        """
        self._say_once(describe_changes(recorded, current, what))

    def compare_code(self, work: str, code: Code) -> None:
        """Print which plugins were edited since the training in this work folder was interrupted."""
        self._say_once(compare_code(self.store, work, code))

    def _say_once(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line not in self._printed:
                self.say(line)
            self._printed.add(line)
