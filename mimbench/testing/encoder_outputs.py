"""Checks of what an encoder returns: sizes, layers, maps of the pyramid, and features that agree."""

from __future__ import annotations

import math

import torch

from mimbench.contract import Encoder
from mimbench.contract.forms import describe_layers_problem, describe_tokens_problem
from mimbench.errors import InputError
from mimbench.masks import resize_mask, visible_indices
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


@check("embed", needs=["tokens_have_their_shape"])
def normed_tokens_are_normed(subject: EncoderSubject) -> None:
    """With "normed-tokens" in `can`, images with twice the contrast give the same tokens."""
    encoder, images = _able("normed-tokens", subject), 1e6 * subject.images()  # so large that no bias or epsilon counts
    if differ(encoder.embed(images), encoder.embed(2 * images)):
        raise Failure(
            'can has "normed-tokens", and tokens of embed grow with the images; apply a layer norm in embed, or leave '
            "the ability out"
        )


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


@check("encode_visible", needs=["map_has_its_shape"])
def visible_cells_stand_alone(subject: EncoderSubject) -> None:
    """`encode_visible` of all cells is the map of `encode`; of some cells, it does not depend on the others."""
    encoder = _able("visible-cells", subject)
    tokens = encoder.embed(subject.images())
    whole = encoder.encode(tokens).flatten(2).mT
    order = torch.randperm(whole.shape[1], generator=torch.Generator().manual_seed(0)).unsqueeze(0)
    every = encoder.encode_visible(tokens, order)
    _expect("encode_visible", every, (IMAGES, order.shape[1], encoder.out_dim))
    if differ(whole[:, order[0]], every):
        raise Failure("encode_visible of all cells differs from encode; keep the order, and add the same norm")
    keep, side = order[:, : order.shape[1] // 2], subject.image_size // encoder.stride
    before = encoder.encode_visible(tokens, keep)
    if differ(before, encoder.encode_visible(tokens, keep.expand(IMAGES, -1))):
        raise Failure("encode_visible with one mask per image differs from that with one for all; use each row of keep")
    masked = torch.ones(1, side * side, dtype=torch.bool).scatter(1, keep, False).view(1, side, side)
    masked = resize_mask(masked, tokens.shape[1:3]).unsqueeze(-1)
    if differ(before, encoder.encode_visible(torch.where(masked, tokens.flip(-1), tokens), keep)):
        raise Failure("encode_visible changes with a masked cell; encode the cells of `keep` only")


@check("encode_mixed", needs=["map_has_its_shape"])
def mixed_images_stay_apart(subject: EncoderSubject) -> None:
    """`encode_mixed` of one image is `encode`; of two images, neither depends on the other."""
    encoder = _able("mixed-images", subject)
    tokens = encoder.embed(subject.images())
    whole = encoder.encode(tokens)
    side = subject.image_size // encoder.stride
    mask = torch.arange(side * side).view(1, side, side) % 3 == 0
    if differ(whole, encoder.encode_mixed(tokens, torch.zeros_like(mask))):
        raise Failure("encode_mixed of an image that is not mixed differs from encode; compute the same")
    changed = torch.where(resize_mask(mask, tokens.shape[1:3]).unsqueeze(-1), tokens.flip(-1), tokens)
    before, after = (encoder.encode_mixed(some, mask).masked_fill(mask.unsqueeze(1), 0) for some in (tokens, changed))
    if differ(before, after):
        raise Failure("encode_mixed of one image changes with the other; let tokens attend to their own image only")


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


@check("run_blocks", needs=["layers_have_their_form"])
def further_blocks_go_on_from_a_layer(subject: EncoderSubject) -> None:
    """`run_blocks` passes features of a layer through new blocks, and with none through the final norm alone."""
    encoder = _able("further-blocks", subject)
    tokens = encoder.embed(subject.images())
    (last,) = encoder.forward_layers(tokens, (-1,), final_norm=False)
    if differ(encoder.run_blocks((), last).dense, encoder.encode(tokens)):
        raise Failure("run_blocks without blocks differs from encode; apply the final norm alone")
    blocks = encoder.further_blocks((0.0, 0.0))
    if len(blocks) != 2:
        raise Failure(f"further_blocks((0.0, 0.0)) gives {len(blocks)} blocks; give one for each rate")
    further = encoder.run_blocks(blocks, last, final_norm=False)
    _expect("run_blocks: sequence", further.sequence, tuple(last.sequence.shape))
    one_by_one = encoder.run_blocks(blocks[1:], encoder.run_blocks(blocks[:1], last, final_norm=False))
    if differ(one_by_one.dense, encoder.run_blocks(blocks, last).dense):
        raise Failure("two blocks at once differ from one after the other; apply them in their order")


@check("block_input", needs=["layers_have_their_form"])
def block_input_has_the_form_of_a_layer(subject: EncoderSubject) -> None:
    """`block_input` has the shape of a layer; with `keep`, it is that of the whole image at those patches."""
    encoder = _able("block-input", subject)
    tokens = encoder.embed(subject.images())
    whole, first = encoder.block_input(tokens), encoder.forward_layers(tokens, (0,), final_norm=False)[0]
    _expect("block_input: sequence", whole.sequence, tuple(first.sequence.shape))
    if "visible-only" not in encoder.can:
        return
    keep = torch.arange(0, math.prod(encoder.grid), 2).flip(0).expand(IMAGES, -1)
    expected = torch.cat((whole.prefix, whole.patches[:, keep[0]]), 1)
    if differ(encoder.block_input(tokens, keep=keep).sequence, expected):
        raise Failure("block_input with keep differs from that of the whole image at those patches; keep their order")


@check("encode_late", needs=["last_features_equal_encode", "encoding_all_tokens_equals_encode"])
def mask_tokens_join_late(subject: EncoderSubject) -> None:
    """`encode_late` equals `encode` if nothing is masked, and `encode_masked` if mask tokens join before all blocks."""
    encoder = _able("late-tokens", subject)
    images, count = subject.images(), math.prod(encoder.grid)
    tokens, token = encoder.embed(images), torch.linspace(-1, 1, encoder.embed_dim).view(1, 1, 1, -1)
    if differ(encoder.encode_late(tokens, torch.arange(count).expand(IMAGES, -1), token, 1), encoder.encode(tokens)):
        raise Failure("encode_late without masked patches differs from encode; give every block all tokens then")
    mask = (torch.arange(count) % 2 == 1).view(1, *encoder.grid).expand(IMAGES, *encoder.grid)
    late = encoder.encode_late(tokens, visible_indices(mask), token, encoder.num_layers)
    if differ(late, encoder.encode_masked(images, mask, token)):
        raise Failure("encode_late with mask tokens in all blocks differs from encode_masked; put them at their places")


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
    normed_tokens_are_normed,
    map_has_its_shape,
    layers_have_their_form,
    last_features_equal_encode,
    pyramid_is_as_declared,
    pyramid_takes_other_sizes,
    encoding_all_tokens_equals_encode,
    dropped_tokens_are_not_seen,
    visible_cells_stand_alone,
    mixed_images_stay_apart,
    layers_come_in_the_order_asked_for,
    attention_is_a_distribution,
    further_blocks_go_on_from_a_layer,
    block_input_has_the_form_of_a_layer,
    mask_tokens_join_late,
    abilities_agree_with_the_sizes,
)
