"""After which steps a training saves its state, and when it stops. Several ranks decide together."""

from __future__ import annotations

import time

import torch
from mmengine.dist import all_reduce

from mimbench.contract import TrainConfig
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.ranks import on_first_rank
from mimbench.engine.stopping import StopRequest
from mimbench.leases import confirm_leases, has_lost_lease

SAVE, SIGNAL, LOST = 1, 100, 1000
"""What a rank asks for, the most urgent last; a signal is SIGNAL plus its number."""


class SavingPlan:
    """Saving by steps is the same in each run of a training. Saving by minutes, and stopping, is not."""

    def __init__(
        self, config: TrainConfig, steps_per_epoch: int, last_step: int, request: StopRequest, device: torch.device
    ) -> None:
        """last_step: at which this run of the training ends."""
        self._every, self._last_step = config.saving_interval(steps_per_epoch), last_step
        self._seconds = 60 * config.checkpoint_minutes if config.checkpoint_minutes else float("inf")
        self._request, self._device = request, device
        self._saved_at = time.monotonic()

    def ask(self, step: int, *, together: bool) -> tuple[bool, int]:
        """Whether to save the state after this step, and the number of a signal that asks to stop, or 0.

        Args:
            together: all ranks wait for each other now, and share what one of them has been asked. Without it, several
                ranks save by steps only. A single process needs none of it.

        Raises:
            LeaseLost: another process has taken over this training.
        """
        wish = self._wish()
        if get_world_size() > 1:
            wish = _largest(wish, self._device) if together else 0
        if wish >= LOST:
            on_first_rank(confirm_leases)()
        is_due = step % self._every == 0 or step == self._last_step or wish == SAVE
        if is_due:
            self._saved_at = time.monotonic()
        return is_due, wish - SIGNAL if SIGNAL < wish < LOST else 0

    def _wish(self) -> int:
        """What this rank asks for. Rank 0's clock and leases count, and signals to any rank."""
        if has_lost_lease():
            return LOST
        if self._request.signal:
            return SIGNAL + self._request.signal
        return SAVE if get_rank() == 0 and time.monotonic() - self._saved_at >= self._seconds else 0


def _largest(wish: int, device: torch.device) -> int:
    tensor = torch.tensor(wish, device=device)
    all_reduce(tensor, "max")
    return int(tensor)
