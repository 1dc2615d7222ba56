"""Checks of what an encoder returns: sizes, layers, maps of the pyramid, and features that agree."""

from __future__ import annotations

import math

import torch

from mimbench.contract import Encoder
from mimbench.contract.forms import describe_layers_problem, describe_tokens_problem
from mimbench.errors import InputError
from mimbench.testing.checks import BadOptions, Failure, Skip, check
from mimbench.testing.encoder_subject import IMAGES, EncoderSubject
from mimbench.testing.tensors import differ

SIZES = ("embed_dim", "out_dim", "patch_size", "stride", "num_layers", "num_prefix_tokens", "tubelet")


@check("__init__", needs=["metadata_is_complete"])
def sizes_are_declared(subject: EncoderSubject) -> None:
    """The encoder is built, and has each size that the contract names, as a whole number."""
    try:
        encoder = subject.build()
    except InputError as error:
        raise BadOptions(f"the options do not suit images of {subject.image_size} px: {error}") from error
    for name in SIZES:
        value = getattr(encoder, name, None)
        if not isinstance(value, int) or value < (name != "num_prefix_tokens"):
            raise Failure(f"{name} is {value!r}; set it to a whole number in set_sizes or __init__")
    if encoder.input_shape != subject.shape:
        raise Failure("image_size, in_channels or frames differ from the arguments; pass them to super().__init__")


@check("embed", needs=["sizes_are_declared"])
def tokens_have_their_shape(subject: EncoderSubject) -> None:
    """`embed` returns [B, *grid, embed_dim]."""
    encoder = subject.build()
    problem = describe_tokens_problem(encoder, encoder.embed(subject.images()), IMAGES)
    if problem:
        raise Failure(problem)


@check("encode", needs=["tokens_have_their_shape"])
def map_has_its_shape(subject: EncoderSubject) -> None:
    """`encode` returns [B, out_dim, *map_grid] with one cell per `stride` px and `tubelet` frames."""
    encoder = subject.build()
    shape = (IMAGES, encoder.out_dim, *encoder.map_grid)
    _expect("encode", encoder.encode(encoder.embed(subject.images())), shape)


@check("layers", needs=["map_has_its_shape"])
def layers_have_their_form(subject: EncoderSubject) -> None:
    """`layers` returns num_layers Features of consistent shapes; `last` ends them earlier."""
    encoder, images = subject.build(), subject.images()
    layers = encoder.layers(images)
    if problem := describe_layers_problem("layers", encoder, layers, IMAGES):
        raise Failure(problem)
    for number, features in enumerate(layers):
        if differ(features.dense.flatten(2).mean(2), features.pooled):
            raise Failure(f"layer {number}: pooled is not the mean of dense over its cells; compute it so")
    for last in {0, -2, -1} - ({-2} if encoder.num_layers < 2 else set()):
        some = encoder.layers(images, last)
        if len(some) != last % encoder.num_layers + 1 or differ(some[-1].dense, layers[last].dense):
            raise Failure(f"layers(images, {last}) does not end with that layer's features; stop after layer `last`")


@check("features", needs=["layers_have_their_form"])
def last_features_equal_encode(subject: EncoderSubject) -> None:
    """`features(images)` of the last layer are the map from `encode(embed(images))`."""
    encoder, images = subject.build(), subject.images()
    if differ(encoder.encode(encoder.embed(images)), encoder.features(images).dense):
        raise Failure("encode(embed(images)) and features(images).dense differ; apply the final norm in both")


@check("pyramid", needs=["map_has_its_shape"])
def pyramid_is_as_declared(subject: EncoderSubject) -> None:
    """`pyramid` returns one map per stride and dim, the finest first."""
    encoder = _for_images(subject)
    strides, dims = encoder.pyramid_strides, encoder.pyramid_dims
    if len(strides) != len(dims) or not strides or list(strides) != sorted(strides):
        raise Failure(f"pyramid_strides {strides} and pyramid_dims {dims}: give one of each per map, the finest first")
    _expect_pyramid(encoder, subject, (subject.image_size, subject.image_size))


@check("pyramid", needs=["pyramid_is_as_declared"])
def pyramid_takes_other_sizes(subject: EncoderSubject) -> None:
    """`pyramid` takes larger and oblong images whose sides `patch_size` divides."""
    _for_images(subject)
    encoder, side = _able("any-size", subject), subject.image_size
    for size in ((2 * side, 2 * side), (side, side + encoder.stride), (side + encoder.patch_size, side)):
        _expect_pyramid(encoder, subject, size)


@check("forward_layers", needs=["map_has_its_shape"])
def encoding_all_tokens_equals_encode(subject: EncoderSubject) -> None:
    """`forward_tokens` with all tokens in `keep`, in another order, returns the tokens of `encode` in that order."""
    encoder = _able("visible-only", subject)
    tokens = encoder.embed(subject.images())
    order = torch.randperm(math.prod(encoder.grid), generator=torch.Generator().manual_seed(0))
    visible = encoder.forward_tokens(tokens, order.expand(IMAGES, -1)).sequence
    _expect("forward_tokens", visible, (IMAGES, encoder.num_prefix_tokens + len(order), encoder.out_dim))
    whole = encoder.encode(tokens).flatten(2).mT[:, order]
    if differ(whole, visible[:, encoder.num_prefix_tokens :]):
        raise Failure(
            "forward_tokens of all tokens differs from encode; add the same positions, norm and prefix tokens"
        )


@check("forward_layers", needs=["encoding_all_tokens_equals_encode"])
def dropped_tokens_are_not_seen(subject: EncoderSubject) -> None:
    """`forward_tokens` does not depend on tokens that it drops."""
    encoder = _able("visible-only", subject)
    tokens = encoder.embed(subject.images())
    count = math.prod(encoder.grid)
    keep = torch.arange(0, count, 2).expand(IMAGES, -1)
    dropped = (torch.arange(count) % 2 == 1).view(1, *encoder.grid, 1)
    before, after = (
        encoder.forward_tokens(some, keep).sequence for some in (tokens, torch.where(dropped, tokens + 1, tokens))
    )
    if differ(before, after):
        raise Failure("the output of forward_tokens changes with a dropped token; encode the tokens at `keep` only")


@check("forward_layers", needs=["layers_have_their_form"])
def layers_come_in_the_order_asked_for(subject: EncoderSubject) -> None:
    """`forward_layers` returns the layers that it is asked for, in that order; with `keep`, of the visible tokens."""
    encoder = subject.build()
    tokens = encoder.embed(subject.images())
    whole = encoder.forward_layers(tokens)
    chosen = encoder.forward_layers(tokens, (-1, 0))
    if len(chosen) != 2 or differ(chosen[0].dense, whole[-1].dense) or differ(chosen[1].dense, whole[0].dense):
        raise Failure("forward_layers(tokens, (-1, 0)) does not give the last and the first layer; keep the order")
    if "visible-only" in encoder.can:
        keep = torch.arange(2).expand(IMAGES, -1)
        for number, features in enumerate(encoder.forward_layers(tokens, keep=keep)):
            _expect(f"layer {number} with keep: patches", features.patches, (IMAGES, 2, features.pooled.shape[1]))


@check("attention", needs=["layers_have_their_form"])
def attention_is_a_distribution(subject: EncoderSubject) -> None:
    """`attention` yields one map per layer over prefix tokens and patches, whose rows sum to 1."""
    encoder = _able("attention", subject)
    tokens = encoder.num_prefix_tokens + math.prod(encoder.grid)
    layers = list(encoder.attention(subject.images()))
    if len(layers) != encoder.num_layers:
        raise Failure(f"attention yields {len(layers)} maps, and num_layers is {encoder.num_layers}; yield one each")
    for number, weights in enumerate(layers):
        _expect(f"attention of layer {number}", weights, (IMAGES, weights.shape[1], tokens, tokens))
        if weights.min() < 0 or differ(weights.sum(-1), torch.ones(weights.shape[:-1])):
            raise Failure(f"rows of layer {number} do not sum to 1; return the weights after the softmax")


@check("set_sizes", needs=["sizes_are_declared"])
def abilities_agree_with_the_sizes(subject: EncoderSubject) -> None:
    """`can` names "class-token" only with a prefix token, and "one-grid" only if stride and patch_size are equal."""
    encoder = subject.build()
    if "class-token" in encoder.can and not encoder.num_prefix_tokens:
        raise Failure('can has "class-token", and num_prefix_tokens is 0; leave the ability out')
    if "one-grid" in encoder.can and encoder.stride != encoder.patch_size:
        raise Failure(
            f'can has "one-grid", and stride {encoder.stride} differs from patch_size {encoder.patch_size}; leave the '
            "ability out"
        )


def _for_images(subject: EncoderSubject) -> Encoder:
    """The encoder. Raises Skip if it gets clips."""
    if subject.frames > 1:
        raise Skip("dense tasks take images only, and it gets clips")
    return subject.build()


def _able(ability: str, subject: EncoderSubject) -> Encoder:
    """The encoder. Raises Skip if it does not have the ability."""
    encoder = subject.build()
    if ability not in encoder.can:
        raise Skip(f"{ability!r} is not in `can`")
    return encoder


def _expect_pyramid(encoder: Encoder, subject: EncoderSubject, size: tuple[int, int]) -> None:
    """Maps have H / stride rows, rounded up."""
    maps = encoder.pyramid(subject.images(size=size))
    strides, dims = encoder.pyramid_strides, encoder.pyramid_dims
    if len(maps) != len(strides):
        raise Failure(f"pyramid returns {len(maps)} maps, and pyramid_strides has {len(strides)}; make them equal")
    for number, (one, stride, dim) in enumerate(zip(maps, strides, dims, strict=True)):
        shape = (IMAGES, dim, -(-size[0] // stride), -(-size[1] // stride))
        _expect(f"map {number} of pyramid for {size[0]} x {size[1]} px", one, shape)


def _expect(what: str, value: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise Failure(f"{what} has shape {list(value.shape)}, and by the declared sizes {list(shape)}; correct either")


OUTPUT_CHECKS = (
    sizes_are_declared,
    tokens_have_their_shape,
    map_has_its_shape,
    layers_have_their_form,
    last_features_equal_encode,
    pyramid_is_as_declared,
    pyramid_takes_other_sizes,
    encoding_all_tokens_equals_encode,
    dropped_tokens_are_not_seen,
    layers_come_in_the_order_asked_for,
    attention_is_a_distribution,
    abilities_agree_with_the_sizes,
)
