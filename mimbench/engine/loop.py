"""The training loop: epochs of whole optimizer steps. A training can start and end between any two steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from mimbench.distributed import get_rank, get_world_size
from mimbench.shared_batch import sharing_batch


class WholeStepLoop(EpochBasedTrainLoop):
    """mmengine's epoch loop, with as many micro-batches per epoch as fill whole optimizer steps.

    Micro-batches that remain at the end of an epoch are dropped, as incomplete batches are without accumulation. So
    the training has exactly as many steps as the schedule counts.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader,
        steps: int,
        *,
        accumulate: int,
        shares_batch: bool,
        after_step: Callable[[int], None],
    ) -> None:
        """
        Args:
            steps: optimizer steps to train. The last of them may lie within an epoch.
            shares_batch: the ranks share each micro-batch; see `mimbench.shared_batch`.
            after_step: called after each optimizer step, with the number of micro-batches done so far. After the last
                step of an epoch it is called when the hooks of that epoch have run.
        """
        self.per_epoch = len(dataloader) // accumulate * accumulate
        super().__init__(runner, dataloader, math.ceil(steps * accumulate / self.per_epoch))
        self.accumulate, self._shares_batch = accumulate, shares_batch
        self._max_iters = steps * accumulate
        self._after_step = after_step

    def start_from(self, iteration: int) -> None:
        """Start after `iteration` micro-batches of the training, which may be within an epoch, between two steps."""
        self._iter = iteration
        self._epoch = self._max_epochs if iteration == self._max_iters else iteration // self.per_epoch

    @property
    def is_at_epoch_end(self) -> bool:
        """Whether the micro-batches done so far are whole epochs."""
        return self._iter % self.per_epoch == 0

    def run_epoch(self) -> None:
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        done = self._iter % self.per_epoch
        end = min(self.per_epoch, self._max_iters - self._epoch * self.per_epoch)
        for index, batch in enumerate(self._batches(done, end), start=done):
            self.run_iter(index, batch)
            is_last = index + 1 == end
            if not is_last and (index + 1) % self.accumulate == 0:
                self._after_step(self._iter)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
        self._after_step(self._iter)

    def run_iter(self, idx: int, data_batch: Any) -> None:
        with sharing_batch(get_rank(), get_world_size() if self._shares_batch else 1):
            super().run_iter(idx, data_batch)

    def _batches(self, done: int, end: int) -> Iterator[Any]:
        """The micro-batches of this epoch up to number `end`, except for the first `done`."""
        skip = getattr(self.dataloader.sampler, "skip_next", None)
        if done and skip:  # the sampler can skip them without loading their images
            skip(done * (self.dataloader.batch_size or 1))
            return islice(iter(self.dataloader), end - done)
        return islice(iter(self.dataloader), done, end)
