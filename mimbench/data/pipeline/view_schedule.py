"""Views of an image whose sizes change between epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mimbench.contract import InputConfig
from mimbench.errors import InputError


@dataclass(frozen=True)
class ViewSchedule:
    """The views of each epoch. Loaders and `TrainableMethod` share one, so that they agree on the sizes."""

    starts: tuple[tuple[int, tuple[InputConfig, ...]], ...]
    """Epoch, from 0, and the views from that epoch on; the epochs rise from 0."""

    @classmethod
    def from_sizes(cls, views: Sequence[InputConfig], starts: Sequence[tuple[int, int]]) -> ViewSchedule:
        """All views scale by the same factor: if a first view of 224 px becomes 112 px, one of 96 px becomes 48 px.

        Args:
            views: how each view is augmented. Crop scales, which are fractions of the image, stay.
            starts: epoch, from 0, and side of the first view in px from that epoch on.

        Raises:
            InputError: the side of a view would be no whole number.
        """
        return cls(
            tuple((epoch, tuple(_scaled(view, size, views[0].image_size) for view in views)) for epoch, size in starts)
        )

    def at(self, epoch: int) -> tuple[InputConfig, ...]:
        """The views in this epoch, from 0."""
        return next(views for first, views in reversed(self.starts) if first <= epoch)


Views = Sequence[InputConfig] | ViewSchedule
"""Views of an image, the same in all epochs or not."""


def views_at(views: Views, epoch: int) -> tuple[InputConfig, ...]:
    """The views in this epoch, from 0."""
    return views.at(epoch) if isinstance(views, ViewSchedule) else tuple(views)


def _scaled(view: InputConfig, size: int, whole: int) -> InputConfig:
    """A view at size / whole of its size. The resizing at evaluation, which training does not use, is left out."""
    side, rest = divmod(view.image_size * size, whole)
    if rest:
        raise InputError(
            f"pretrain.image_sizes: at {size} px of {whole}, a view of {view.image_size} px would have "
            f"{view.image_size * size / whole:.1f} px, since all views scale by the same factor; choose another size"
        )
    return view.model_copy(update={"image_size": side, "eval_resize": None})
