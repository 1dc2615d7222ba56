"""Loading stored weights into encoders and methods, and splitting a method's state for storage."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.advice import short_text
from mimbench.contract import Encoder, Method
from mimbench.convert import resize_positions
from mimbench.errors import InputError, NotSupported
from mimbench.store.store import StoredCheckpoint


def restore_encoder(method: Method, checkpoint: StoredCheckpoint) -> Encoder:
    """The encoder that `method` exports, with the weights of a checkpoint. It trains what `method.encoder` trains.

    Every tensor must match by name and shape. Only position tables are resampled, if a checkpoint is used at another
    image size.

    Raises:
        InputError: a tensor does not match.
    """
    encoder = method.exported_encoder()
    try:
        encoder.load_state_dict(resize_positions(checkpoint.encoder(), encoder), strict=True)
    except RuntimeError as error:
        what = checkpoint.card["what"]["encoder"]["name"]
        raise InputError(
            f"checkpoint {checkpoint.folder} does not fit encoder {what!r} with these options: {short_text(error)}; "
            "use the options that it was made with"
        ) from error
    trained = {name: parameter.requires_grad for name, parameter in method.encoder.named_parameters()}
    for name, parameter in encoder.named_parameters():  # those of a teacher require no gradients
        parameter.requires_grad_(trained.get(name, True))
    return encoder


def copy_exported(method: Method, encoder: Encoder) -> None:
    """Copy the weights of the encoder that `method` exports into another one on the CPU, as a checkpoint would."""
    weights = {name: value.detach().cpu() for name, value in method.exported_encoder().state_dict().items()}
    encoder.load_state_dict(resize_positions(weights, encoder), strict=True)


def restore(method: Method, checkpoint: StoredCheckpoint) -> Method:
    """`method` with all its pretrained weights, including those of a decoder, in evaluation mode.

    Raises:
        InputError: some weights are missing (the checkpoint may be imported without them), or do not match.
    """
    encoder = method.exported_encoder()
    prefix = encoder_prefix(method, encoder)
    state = {f"{prefix}{key}": value for key, value in resize_positions(checkpoint.encoder(), encoder).items()}
    rest = checkpoint.rest()
    missing = [key for key in non_encoder_state(method) if key not in rest]
    if missing and "imported" in checkpoint.card["what"]:
        raise InputError(
            f"checkpoint {checkpoint.folder} was imported without {len(missing)} tensors of method {method.name!r}, "
            f"such as {missing[0]!r}: its encoder can be used, but not for tasks that need the whole method"
        )
    try:
        method.load_state_dict({**state, **rest}, strict=True)
    except RuntimeError as error:
        raise InputError(
            f"checkpoint {checkpoint.folder} does not fit method {method.name!r}: {short_text(error)}"
        ) from error
    return method.eval()


@torch.no_grad()
def check_reconstruction(method: Method, task: str, checkpoint: StoredCheckpoint | None) -> None:
    """Raise InputError if `method` cannot reconstruct masked pixels, or `checkpoint` lacks weights for it.

    The method reconstructs one patch of a blank image here. So methods need not declare whether they can.
    """
    encoder = method.encoder
    mask = torch.zeros(1, *encoder.grid, dtype=torch.bool)
    mask.view(-1)[0] = True
    try:
        method.eval().reconstruct(torch.zeros(1, *encoder.input_shape), mask)
    except NotSupported as error:
        raise InputError(f"task {task!r} needs a method that reconstructs images: {error}") from error
    if checkpoint:
        restore(method, checkpoint)


def require_single_names(method: Method) -> None:
    """Raise InputError if the method has one tensor under two names, which safetensors cannot store.

    The usual cause is a second attribute that holds the encoder, in addition to `self.encoder`.
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
    """The state dict of a method without the encoder that it exports."""
    prefix = encoder_prefix(method, method.exported_encoder())
    return {key: value for key, value in method.state_dict().items() if not key.startswith(prefix)}


def encoder_prefix(method: Method, encoder: Encoder) -> str:
    """The prefix of the encoder's tensors in the state dict of the method, such as "encoder."."""
    return next(name for name, module in method.named_modules() if module is encoder) + "."
