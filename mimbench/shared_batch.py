"""One batch that several processes share, so that a step on N processes equals that of one process.

Within `sharing_batch`, a rank holds the images [rank * B, (rank + 1) * B) of a micro-batch of N * B images, and all
ranks have one seed. Whatever is drawn per image is drawn for all N * B images on every rank, by `draw_rows`, and
each rank takes its rows. So every rank's generators move on as those of a single process do. Outside of it, and in a
single process, these functions change nothing.

The engine opens it for the whole of a training step, backward pass included.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from mimbench.distributed import average_over_ranks

if TYPE_CHECKING:
    from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Share:
    """Which rows of a batch this process holds."""

    rank: int
    processes: int
    views: int = 1
    """Views of all images that follow each other along the axis of rows."""


_share: Share | None = None  # no context variable: autograd's threads draw too, when activations are recomputed


@contextmanager
def sharing_batch(rank: int, processes: int) -> Iterator[None]:
    """Within this context, this process holds the rows of `rank` among `processes`. One process shares nothing."""
    with in_share(Share(rank, processes) if processes > 1 else None):
        yield


@contextmanager
def in_share(share: Share | None) -> Iterator[None]:
    """Within this context, `current_share` is `share`; None: nothing is shared."""
    before = _share
    set_share(share)
    try:
        yield
    finally:
        set_share(before)


def set_share(share: Share | None) -> None:
    """Make `share` what `current_share` returns, until another call."""
    global _share
    _share = share


def current_share() -> Share | None:
    """The share of this process; None if no batch is shared here."""
    return _share


@contextmanager
def rows_of_views(views: int) -> Iterator[None]:
    """Within this context, the rows of a batch are `views` views of all images, one view after the other.

    It is for methods that join views with torch.cat, and so for drop path and masks of these. Several rows of an image
    that follow each other, as of `repeat_per_mask`, need nothing.
    """
    with in_share(replace(_share, views=views) if _share else None):
        yield


def draw_rows(draw: Callable[[int], Tensor], rows: int, *, axis: int = 0, at_once: int | None = None) -> Tensor:
    """Draw random numbers for the images of this process.

    Args:
        draw: takes a number of rows and returns a tensor with that many along `axis`. In a shared batch it is called
            with the rows of all processes. What it calls draws as in a single process.
        rows: of this process: its images, or a multiple of them.
        at_once: for many numbers per row: call `draw` for so many rows at most, again and again, also in a single
            process. So a process holds its own rows and those of one call. The axis is the first one then.

    Returns:
        The rows of this process.
    """
    if at_once is not None:
        return _draw_in_parts(draw, rows, at_once)
    if _share is None:
        return draw(rows)
    share = _share
    with in_share(None):
        whole = draw(rows * share.processes)
    with in_share(share):
        return take_rows(whole, axis=axis)


def _draw_in_parts(draw: Callable[[int], Tensor], rows: int, at_once: int) -> Tensor:
    share = _share or Share(0, 1)
    per_view = rows // share.views
    firsts = [(view * share.processes + share.rank) * per_view for view in range(share.views)]
    result: Tensor | None = None
    with in_share(None):
        for start in range(0, rows * share.processes, at_once):
            part = draw(min(at_once, rows * share.processes - start))
            if result is None:
                result = part.new_empty(rows, *part.shape[1:])
            for view, first in enumerate(firsts):
                low, high = max(first, start), min(first + per_view, start + len(part))
                if low < high:
                    target = view * per_view - first
                    result[target + low : target + high] = part[low - start : high - start]
    return draw(0) if result is None else result


def draws_rows(
    function: Callable[Concatenate[int, Arguments], Tensor],
) -> Callable[Concatenate[int, Arguments], Tensor]:
    """Decorate a function of a number of rows that draws as many, along the first axis of its result: see `draw_rows`.

    What is drawn once for all images of a batch, such as one mask for all, needs `draw_once`.
    """

    @functools.wraps(function)
    def call(rows: int, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        return draw_rows(lambda count: function(count, *args, **kwargs), rows)

    return call


def draw_once(draw: Callable[[], Result]) -> Result:
    """Draw what all images of a batch have in common, such as one mask for all: the same on every process."""
    with in_share(None):
        return draw()


def take_rows(whole: Tensor, *, axis: int = 0) -> Tensor:
    """The rows of this process, of a tensor with those of all processes along `axis`: a copy, or `whole` itself."""
    if _share is None:
        return whole
    parts = whole.unflatten(axis, (_share.views, _share.processes, -1))
    return parts.select(axis + 1, _share.rank).flatten(axis, axis + 1).clone()


def spread_rows(rows: Tensor, *, axis: int = 0) -> Tensor:
    """The opposite of `take_rows`: a tensor for all processes, zero at the rows of the others."""
    if _share is None:
        return rows
    parts = rows.unflatten(axis, (_share.views, -1))
    whole = parts.new_zeros(*parts.shape[: axis + 1], _share.processes, *parts.shape[axis + 1 :])
    whole.select(axis + 1, _share.rank).copy_(parts)
    return whole.flatten(axis, axis + 2)


def mean_over_shares(count: Tensor, *, least: int | None = None) -> Tensor:
    """A number that a loss divides by, such as masked patches: its mean over the processes that share the batch.

    The mean over the processes of sum / mean_over_shares(count) is the mean over all images of the batch. A plain
    sum / count would weight the images of a process by how few it has. All processes call it.

    Args:
        count: of any shape, on the images' device.
        least: what the sum over the processes is at least.

    Returns:
        Without gradient and in float32 at least; in a batch that is not shared, `count` itself, `least` or more.
    """
    if _share is None:
        return count if least is None else count.clamp(min=least)
    mean = average_over_ranks(count if count.is_floating_point() else count.float())
    return mean if least is None else mean.clamp(min=least / _share.processes)
