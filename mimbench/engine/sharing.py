"""Parts of a model that draw for, or take statistics of, all images of a batch that processes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from mimbench.compute.batch_norms import synchronise_batch_norms
from mimbench.compute.drop_path import DropPath, drawn, is_drop_path
from mimbench.engine.acceleration import has_dropout
from mimbench.errors import InputError


def shares_batch(trainable: object) -> bool:
    """Whether the ranks take their rows of what a Trainable draws for the images of all ranks."""
    return bool(getattr(trainable, "shares_batch", False))


@contextmanager
def shared_parts(model: nn.Module) -> Iterator[None]:
    """Within this context, drop paths draw for all images of a shared batch, and batch norms count all of them.

    Numbers of a batch that is not shared stay the same.
    """
    paths = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if is_drop_path(child) and not isinstance(child, DropPath)
    ]
    norms = [(norm, type(norm)) for norm in model.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    for parent, name, child in paths:
        setattr(parent, name, drawn(child))
    synchronise_batch_norms(model)
    try:
        yield
    finally:
        for parent, name, child in paths:
            setattr(parent, name, child)
        for norm, kind in norms:
            norm.__class__ = kind


def require_shared(model: nn.Module, name: str) -> None:
    """Raise InputError if a model has dropout, of which processes cannot share what is drawn. name: for the message."""
    if has_dropout(model):
        raise InputError(
            f"{name} has dropout, which each process draws by itself: set its rate to 0, or let depends_on_processes "
            "of the method or encoder say so"
        )
