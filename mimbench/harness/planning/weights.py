"""Stored weights, back in the models that they came from."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.contract import Encoder, Method
from mimbench.convert import resize_positions
from mimbench.errors import InputError, NotSupported
from mimbench.store.store import StoredCheckpoint


def restore_encoder(method: Method, checkpoint: StoredCheckpoint) -> Encoder:
    """The encoder that `method` exports, with its pretrained weights; every tensor must fit by name and shape.

    Only position tables are resampled, where a given checkpoint is used at another image size.

    Raises:
        InputError: they do not fit.
    """
    encoder = method.exported_encoder()
    try:
        encoder.load_state_dict(resize_positions(checkpoint.encoder(), encoder), strict=True)
    except RuntimeError as error:
        what = checkpoint.card["what"]["encoder"]["name"]
        raise InputError(
            f"checkpoint {checkpoint.folder} does not fit encoder {what!r}: {error}; delete it to pretrain it again"
        ) from error
    return encoder


def restore(method: Method, checkpoint: StoredCheckpoint) -> Method:
    """`method` with all its pretrained weights, decoder included, in evaluation mode.

    Raises:
        InputError: the checkpoint lacks some (it was imported without them, for instance), or they do not fit.
    """
    encoder = method.exported_encoder()
    prefix = encoder_prefix(method, encoder)
    state = {f"{prefix}{key}": value for key, value in resize_positions(checkpoint.encoder(), encoder).items()}
    rest = checkpoint.rest()
    lacking = [key for key in non_encoder_state(method) if key not in rest]
    if lacking and "imported" in checkpoint.card["what"]:
        raise InputError(
            f"checkpoint {checkpoint.folder} was imported without {len(lacking)} tensors of method {method.name!r}, "
            f"such as {lacking[0]!r}: its encoder can be used, but nothing that needs the whole method"
        )
    try:
        method.load_state_dict({**state, **rest}, strict=True)
    except RuntimeError as error:
        raise InputError(f"checkpoint {checkpoint.folder} does not fit method {method.name!r}: {error}") from error
    return method.eval()


@torch.no_grad()
def check_reconstruction(method: Method, task: str, checkpoint: StoredCheckpoint | None) -> None:
    """Raise InputError where `method`, or what `checkpoint` holds of it, cannot fill in hidden pixels.

    It is asked to fill in one patch of one blank image: then it need not be declared anywhere.
    """
    encoder = method.encoder
    mask = torch.zeros(1, *encoder.grid, dtype=torch.bool)
    mask[0, 0, 0] = True
    try:
        method.eval().reconstruct(torch.zeros(1, encoder.in_channels, *[encoder.image_size] * 2), mask)
    except NotSupported as error:
        raise InputError(f"task {task!r} needs a method that reconstructs images: {error}") from error
    if checkpoint:
        restore(method, checkpoint)


def require_single_names(method: Method) -> None:
    """Raise InputError if the method holds one tensor under two names, which a checkpoint could not store as one.

    The usual cause is a second module that holds the encoder besides `self.encoder`.
    """
    names: dict[int, str] = {}
    for name, tensor in method.state_dict().items():
        if tensor.is_meta or not tensor.numel() or not tensor.is_contiguous():
            continue
        first = names.setdefault(tensor.data_ptr(), name)
        if first != name:
            raise InputError(
                f"method {method.name!r} ({type(method).__module__}) holds one tensor under two names, {first!r} and "
                f"{name!r}; keep the module that holds it in one place (for the encoder: self.encoder)"
            )


def non_encoder_state(method: Method) -> dict[str, Tensor]:
    """The method's state besides that of the encoder which it exports."""
    prefix = encoder_prefix(method, method.exported_encoder())
    return {key: value for key, value in method.state_dict().items() if not key.startswith(prefix)}


def encoder_prefix(method: Method, encoder: Encoder) -> str:
    """What the names of the encoder's tensors begin with in the method's state."""
    return next(name for name, module in method.named_modules() if module is encoder) + "."
