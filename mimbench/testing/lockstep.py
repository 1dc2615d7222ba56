"""Two or more ranks in one process: each in a thread, of which one runs at a time, from one exchange to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from mimbench.distributed import standing_in
from mimbench.shared_batch import current_share, in_share, set_share, sharing_batch

Result = TypeVar("Result")
SECONDS = 120
"""How long a rank may compute between two exchanges."""


class RanksDiffer(Exception):
    """Ranks do not exchange tensors equally often, so that processes would wait for each other."""


class Lockstep(Generic[Result]):
    """Runs a function once per rank, in a shared batch and with `mimbench.distributed` among the ranks.

    torch's own generator and the share are global, so each rank's are put back when it is its turn.
    """

    def __init__(self, size: int) -> None:
        self.size, self.rank = size, 0
        self._turn = threading.Condition()
        self._rounds: list[dict[int, Tensor]] = []
        self._done: set[int] = set()
        self._calls = [0] * size

    def run(self, function: Callable[[int], Result]) -> list[Result]:
        """The results of `function(rank)`, by rank.

        Raises:
            RanksDiffer: a rank ends while another one waits for its tensor.
            Exception: what the first rank that failed raised.
        """
        results: dict[int, Result] = {}
        errors: dict[int, Exception] = {}

        def work(rank: int) -> None:
            self._wait_for(rank)
            try:
                with sharing_batch(rank, self.size):
                    results[rank] = function(rank)
            except Exception as error:
                errors[rank] = error
            with self._turn:
                self._done.add(rank)
                self._pass_on(rank)

        with torch.random.fork_rng(devices=[]), standing_in(self), in_share(current_share()):
            threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(self.size)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for error in sorted(errors.values(), key=lambda error: isinstance(error, RanksDiffer)):
            raise error
        return [results[rank] for rank in range(self.size)]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        rank, call = self.rank, self._calls[self.rank]
        self._calls[rank] += 1
        if call == len(self._rounds):
            self._rounds.append({})
        self._rounds[call][rank] = tensor.clone()
        state, share = torch.random.get_rng_state(), current_share()
        with self._turn:
            self._pass_on(rank)
        self._wait_for(rank)
        torch.random.set_rng_state(state)
        set_share(share)
        tensors = self._rounds[call]
        if len(tensors) < self.size:
            raise RanksDiffer("one exchanges fewer tensors than another one")
        if len({(one.shape, one.dtype) for one in tensors.values()}) > 1:
            raise RanksDiffer("they exchange tensors of different shapes or types at once")
        return [tensors[rank] for rank in range(self.size)]

    def _wait_for(self, rank: int) -> None:
        with self._turn:
            if not self._turn.wait_for(lambda: self.rank == rank, SECONDS):
                raise RanksDiffer(f"rank {rank} waited {SECONDS} s for another one")

    def _pass_on(self, rank: int) -> None:
        """The next rank that has not ended runs. The lock is held."""
        others = [(rank + step) % self.size for step in range(1, self.size + 1)]
        self.rank = next((other for other in others if other not in self._done), rank)
        self._turn.notify_all()
