"""The training loop: epochs of whole optimizer steps, which may start and stop between any two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader


class WholeStepLoop(EpochBasedTrainLoop):
    """mmengine's epoch loop, with as many micro-batches per epoch as fill whole optimizer steps.

    The micro-batches that remain at the end of an epoch are dropped, as incomplete batches are without accumulation.
    So the steps of the training are exactly those that the schedule counts.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader,
        max_epochs: int,
        *,
        accumulate: int,
        after_step: Callable[[int], None],
    ) -> None:
        """after_step: called with the micro-batches done after each optimizer step.

        After the last step of an epoch it is called when the hooks of that epoch are done.
        """
        super().__init__(runner, dataloader, max_epochs)
        self.accumulate = accumulate
        self.per_epoch = len(dataloader) // accumulate * accumulate
        self._max_iters = max_epochs * self.per_epoch
        self._after_step = after_step

    def start_from(self, iteration: int) -> None:
        """Begin after `iteration` micro-batches of the training; may lie within an epoch, between two steps."""
        self._iter, self._epoch = iteration, iteration // self.per_epoch

    def run_epoch(self) -> None:
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        done = self._iter % self.per_epoch
        for index, batch in enumerate(self._batches(done), start=done):
            self.run_iter(index, batch)
            within = index + 1 < self.per_epoch
            if within and (index + 1) % self.accumulate == 0:
                self._after_step(self._iter)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
        self._after_step(self._iter)

    def _batches(self, done: int) -> Iterator[Any]:
        """The micro-batches of this epoch without the first `done`."""
        skip = getattr(self.dataloader.sampler, "skip_next", None)
        if done and skip:  # the sampler passes over them without loading an image
            skip(done * (self.dataloader.batch_size or 1))
            return islice(iter(self.dataloader), self.per_epoch - done)
        return islice(iter(self.dataloader), done, self.per_epoch)
