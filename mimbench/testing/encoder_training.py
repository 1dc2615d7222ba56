"""Checks of how an encoder is trained, stored and planned."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.contract import Encoder
from mimbench.testing.checks import Failure, Skip, check
from mimbench.testing.encoder_outputs import SIZES
from mimbench.testing.encoder_subject import EncoderSubject
from mimbench.testing.tensors import differ, seeded


@check("layer_of", needs=["layers_have_their_form"])
def depths_are_in_range(subject: EncoderSubject) -> None:
    """`layer_of` gives each parameter a depth from 0 to num_layers + 1."""
    encoder = subject.build()
    for name, _ in encoder.named_parameters():
        depth = encoder.layer_of(name)
        if not isinstance(depth, int) or not 0 <= depth <= encoder.num_layers + 1:
            raise Failure(f"layer_of({name!r}) is {depth!r}; return 0 to {encoder.num_layers + 1}")


@check("layer_of", needs=["depths_are_in_range"])
def depths_follow_the_layers(subject: EncoderSubject) -> None:
    """A parameter that first acts in a later layer is not less deep than one that acts earlier.

    Depth num_layers + 1 is for parameters of no single layer, such as the final norm or a table that all blocks share.
    """
    encoder = subject.build()
    deepest, culprit = -1, ""
    for names in _by_first_layer(encoder, subject.images()):
        depths = {name: encoder.layer_of(name) for name in names if encoder.layer_of(name) <= encoder.num_layers}
        for name, depth in depths.items():
            if depth < deepest:
                raise Failure(
                    f"layer_of({name!r}) is {depth}, and that of {culprit!r}, which acts in an earlier layer, is "
                    f"{deepest}; let depth grow with the layers"
                )
        for name, depth in depths.items():
            if depth > deepest:
                deepest, culprit = depth, name


def _by_first_layer(encoder: Encoder, images: Tensor) -> list[list[str]]:
    """Names of the parameters that each layer's features are the first to depend on."""
    waiting = {name: one for name, one in encoder.named_parameters() if one.requires_grad}
    names: list[list[str]] = []
    for features in encoder.layers(images):
        loss = features.dense.square().sum() + features.prefix.square().sum()
        gradients = torch.autograd.grad(loss, list(waiting.values()), retain_graph=True, allow_unused=True)
        names.append([name for name, value in zip(waiting, gradients, strict=True) if value is not None])
        for name in names[-1]:
            del waiting[name]
    return names


@check("no_weight_decay", needs=["sizes_are_declared"])
def undecayed_names_exist(subject: EncoderSubject) -> None:
    """`no_weight_decay` names parameters of the encoder."""
    encoder = subject.build()
    unknown = sorted(encoder.no_weight_decay() - {name for name, _ in encoder.named_parameters()})
    if unknown:
        raise Failure(f"no_weight_decay names {unknown[0]!r}, which is no parameter; use names of named_parameters()")


@check("__init__", needs=["layers_have_their_form"])
def state_round_trips(subject: EncoderSubject) -> None:
    """The state, loaded strictly into an encoder with other weights, gives equal features, to the last bit."""
    one, other, images = subject.build(), subject.build(seed=1), subject.images()
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()}, strict=True)
    if not torch.equal(one.features(images).dense, other.features(images).dense):
        raise Failure(
            "an encoder that loads the state gives other features; keep all that shapes them in parameters, persistent "
            "buffers or the config"
        )


@check("layers", needs=["layers_have_their_form"])
def evaluation_is_deterministic(subject: EncoderSubject) -> None:
    """In evaluation mode equal images give equal features, to the last bit, and do not change the state."""
    encoder, images = subject.build(), subject.images()
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    with seeded(0):
        one = encoder.features(images).dense
    with seeded(1):
        other = encoder.features(images).dense
    changed = [name for name, value in encoder.state_dict().items() if not torch.equal(value, state[name])]
    if changed:
        raise Failure(f"features in evaluation mode change {changed[0]}; update it in training mode only")
    if not torch.equal(one, other):
        raise Failure("features in evaluation mode differ from call to call; drop and sample in training mode only")


@check("layers", needs=["evaluation_is_deterministic"])
def batch_size_does_not_matter(subject: EncoderSubject) -> None:
    """In evaluation mode the features of an image do not depend on the others of its batch."""
    encoder, images = subject.build(), subject.images()
    if differ(encoder.features(images).dense[:1], encoder.features(images[:1]).dense):
        raise Failure("the features of an image depend on its batch; use no statistics of the batch in evaluation mode")


@check("set_sizes", needs=["sizes_are_declared"])
def sizes_without_weights_are_equal(subject: EncoderSubject) -> None:
    """An encoder from `sizes_only` has the same sizes as one with weights."""
    if subject.plugin.set_sizes is Encoder.set_sizes:
        raise Skip("it does not define set_sizes, so sizes_only builds the whole encoder")
    whole = subject.build()
    bare = subject.plugin.sizes_only(subject.make_config(), **subject.sizes)
    for name in SIZES:
        if getattr(bare, name, None) != getattr(whole, name):
            raise Failure(
                f"{name} is {getattr(bare, name, None)} without weights and {getattr(whole, name)} with them; set all "
                "sizes in set_sizes"
            )


@check("__init__", needs=["sizes_are_declared"])
def builds_on_the_meta_device(subject: EncoderSubject) -> None:
    """An encoder built on the meta device reads no values, so that a run is planned without its weights."""
    with torch.device("meta"), seeded(0):
        encoder = subject.plugin.build(subject.make_config(), **subject.sizes)
    elsewhere = [name for name, one in encoder.named_parameters() if one.requires_grad and not one.is_meta]
    if elsewhere:
        raise Failure(
            f"parameter {elsewhere[0]} is not on the meta device; create it without `device=` and without from_numpy"
        )


@check("layers", needs=["layers_have_their_form"])
def runs_in_bf16(subject: EncoderSubject) -> None:
    """Features under bf16 autocast are finite, and have gradients."""
    encoder = subject.build().train()
    with torch.autocast("cpu", torch.bfloat16):
        dense = encoder.features(subject.images()).dense
    dense.float().square().mean().backward()
    if not torch.isfinite(dense).all():
        raise Failure("features under bf16 autocast are not finite; compute sums and norms with .float()")


@check("set_grad_checkpointing", needs=["layers_have_their_form"])
def checkpointing_gives_equal_gradients(subject: EncoderSubject) -> None:
    """With `set_grad_checkpointing` a training step has the same gradients."""
    gradients = []
    for enable in (False, True):
        encoder = subject.build().train()
        if "grad-checkpointing" not in encoder.can:
            raise Skip("'grad-checkpointing' is not in `can`")
        if enable:
            encoder.set_grad_checkpointing()
        with seeded(0):
            encoder.features(subject.images()).dense.square().mean().backward()
        gradients.append({name: one.grad for name, one in encoder.named_parameters() if one.grad is not None})
    plain, recomputed = gradients
    if plain.keys() != recomputed.keys() or any(differ(plain[name], recomputed[name]) for name in plain):
        raise Failure("gradients differ with gradient checkpointing; recompute blocks with torch.utils.checkpoint")


TRAINING_CHECKS = (
    depths_are_in_range,
    depths_follow_the_layers,
    undecayed_names_exist,
    state_round_trips,
    evaluation_is_deterministic,
    batch_size_does_not_matter,
    sizes_without_weights_are_equal,
    builds_on_the_meta_device,
    runs_in_bf16,
    checkpointing_gives_equal_gradients,
)
