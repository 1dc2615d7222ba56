"""The checks of encoders: built-in encoders pass them, and each check fails on an encoder that is wrong in its way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mimbench import registry
from mimbench.contract import Encoder, Features
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.recipe.document import read
from mimbench.recipe.resolve import resolve
from mimbench.testing.encoders import ENCODER_CHECKS, check_encoder

TINY = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
ATTENTION = "attention_is_a_distribution"
BLOCKS = {"further_blocks_go_on_from_a_layer", "block_input_has_the_form_of_a_layer"}
DROPS = {"encoding_all_tokens_equals_encode", "dropped_tokens_are_not_seen", "mask_tokens_join_late"}
CELLS = {"visible_cells_stand_alone", "mixed_images_stay_apart"}
NORMED = "normed_tokens_are_normed"


def skipped(encoder, options, **setting) -> set[str]:
    """Names of the skipped checks; every other check has passed."""
    results = check_encoder(encoder, options, **setting)
    assert [result for result in results if result.status in ("failed", "waived")] == []
    return {result.name for result in results if result.status == "skipped"}


@pytest.mark.parametrize("name", ["vit", "swin", "convnext", "resnet"])
def test_built_in_encoders_pass(name):
    recipe = resolve("smoke", read("smoke"), "simmim", {"encoder.name": name}, None)
    allowed = {
        "vit": {*CELLS, NORMED},
        "swin": {*DROPS, *BLOCKS, ATTENTION},
        "convnext": {*DROPS, *BLOCKS, ATTENTION, *CELLS},
        "resnet": {*DROPS, *BLOCKS, ATTENTION, *CELLS, NORMED},
    }[name]
    assert skipped(recipe.encoder_class(), recipe.encoder_config, image_size=28, channels=1) == allowed


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_convnext", "test_mambaout"])
def test_models_of_timm_pass(model):
    assert skipped(registry.encoders.load("timm"), {"model": model}, image_size=64) <= {
        *DROPS,
        *CELLS,
        *BLOCKS,
        ATTENTION,
        NORMED,
        "pyramid_takes_other_sizes",
        "checkpointing_gives_equal_gradients",
    }


def test_every_built_in_encoder_is_here():
    built_in = {name for name in registry.encoders.names() if registry.encoders.owner(name).startswith("mimbench ")}
    assert built_in == {"vit", "video-vit", "frame-vit", "swin", "convnext", "resnet", "timm"}


@pytest.mark.parametrize("position", ["sincos", "learned", "relative-per-block", "learned-and-relative"])
def test_a_vit_passes_with_all_positions(position):
    one_size_only = {"pyramid_takes_other_sizes", *DROPS} if position.endswith(("block", "and-relative")) else set()
    assert skipped(ViT, TINY | {"position": position}) == one_size_only | {*CELLS, NORMED}


class SmallConfig(ViTConfig):
    """A ViT of two blocks with learned positions."""

    patch_size: int = 4
    embed_dim: int = 16
    depth: int = 2
    num_heads: int = 2
    position: str = "learned"
    table: Path | None = None


class Plain(ViT):
    """An honest encoder, of which the others here are wrong versions."""

    Config = SmallConfig


class NoKind(Plain):
    kind = None


class OddConfig(SmallConfig):
    def shaping(self):
        return {**super().shaping(), "scale": {1.0}}


class Odd(Plain):
    Config = OddConfig


class ByNameConfig(SmallConfig):
    def shaping(self):
        return {**super().shaping(), "table": str(self.table)}


class ByName(Plain):
    Config = ByNameConfig


class NoStride(Plain):
    def set_sizes(self):
        super().set_sizes()
        self.stride = None


class TokensFirst(Plain):
    def embed(self, images):
        return super().embed(images).permute(0, 3, 1, 2)


class WrongDim(Plain):
    def encode(self, tokens):
        return torch.cat((super().encode(tokens),) * 2, 1)


class LayersTwice(Plain):
    def layers(self, images, last=-1, *, final_norm=True):
        return [layer for layer in super().layers(images, last, final_norm=final_norm) for _ in range(2)]


class PooledToken(Plain):
    def layers(self, images, last=-1, *, final_norm=True):
        return [replace(one, pooled=one.prefix[:, 0]) for one in super().layers(images, last, final_norm=final_norm)]


class IgnoresLast(Plain):
    def layers(self, images, last=-1, *, final_norm=True):
        return super().layers(images, final_norm=final_norm)


class NoFinalNorm(Plain):
    def features(self, images, layer=-1):
        return self.forward_layers(self.embed(images), (layer,), final_norm=False)[0]


class WrongPyramid(Plain):
    pyramid_strides = (8,)


class OneSize(Plain):
    def pyramid(self, images):
        assert images.shape[-1] == images.shape[-2] == self.image_size, "one size only"
        return super().pyramid(images)


class Unordered(Plain):
    def forward_layers(self, tokens, layers=None, *, keep=None, final_norm=True):
        in_order = None if keep is None else keep.sort().values
        return super().forward_layers(tokens, layers, keep=in_order, final_norm=final_norm)


class SeesAll(Plain):
    """Adds the mean of all tokens, and so the dropped ones, to the class token."""

    def forward_layers(self, tokens, layers=None, *, keep=None, final_norm=True):
        outputs = super().forward_layers(tokens, layers, keep=keep, final_norm=final_norm)
        mean = tokens.mean((1, 2)).unsqueeze(1)
        return [replace(one, prefix=one.prefix + mean) for one in outputs]


class SortedLayers(Plain):
    """Returns layers by their depth, whatever their order in `layers`."""

    def forward_layers(self, tokens, layers=None, *, keep=None, final_norm=True):
        in_order = sorted(self.layer_indices(layers))
        return super().forward_layers(tokens, in_order, keep=keep, final_norm=final_norm)


class Unscaled(Plain):
    def attention(self, images):
        return (2 * weights for weights in super().attention(images))


class NormedTwice(Plain):
    def run_blocks(self, blocks, features, *, final_norm=True):
        once = super().run_blocks(blocks, features, final_norm=final_norm)
        return super().run_blocks((), once) if final_norm else once


class OneBlock(Plain):
    def further_blocks(self, drop_path):
        return super().further_blocks(drop_path[:1])


class NoPrefixInput(Plain):
    def block_input(self, tokens, *, keep=None):
        return Features.from_map(super().block_input(tokens, keep=keep).dense)


class SortedInput(Plain):
    def block_input(self, tokens, *, keep=None):
        return super().block_input(tokens, keep=None if keep is None else keep.sort(1).values)


class Backwards(Plain):
    def run_blocks(self, blocks, features, *, final_norm=True):
        return super().run_blocks(reversed(list(blocks)), features, final_norm=final_norm)


class Boastful(Plain):
    """Claims a class token."""

    def set_sizes(self):
        super().set_sizes()
        self.can |= {"class-token"}


class BoastfulConfig(SmallConfig):
    class_token: bool = False


Boastful.Config = BoastfulConfig


class TooDeep(Plain):
    def layer_of(self, parameter):
        return 9 if parameter.startswith("body.norm") else super().layer_of(parameter)


class Reversed(Plain):
    def layer_of(self, parameter):
        depth = super().layer_of(parameter)
        return 3 - depth if depth in (1, 2) else depth


class MirrorsLate(Plain):
    def encode_late(self, tokens, keep, token, late):
        return super().encode_late(tokens.flip(1), keep, token, late)


class DoublesTheToken(Plain):
    def encode_late(self, tokens, keep, token, late):
        return super().encode_late(tokens, keep, 2 * token, late)


class UndecayedGhost(Plain):
    def no_weight_decay(self):
        return {"cls_token"}


class Unstored(Plain):
    """Scales its features by a random number that no checkpoint holds."""

    def __init__(self, config, *, image_size, in_channels):
        super().__init__(config, image_size=image_size, in_channels=in_channels)
        self.register_buffer("scale", torch.rand(()), persistent=False)

    def embed(self, images):
        return super().embed(images * self.scale)


class Restless(Plain):
    """Counts its calls in evaluation mode."""

    def __init__(self, config, *, image_size, in_channels):
        super().__init__(config, image_size=image_size, in_channels=in_channels)
        self.register_buffer("calls", torch.zeros(()))

    def forward_layers(self, tokens, layers=None, *, keep=None, final_norm=True):
        self.calls += 1
        return super().forward_layers(tokens, layers, keep=keep, final_norm=final_norm)


class Centred(Plain):
    """Takes the mean of a batch off its tokens."""

    def embed(self, images):
        return super().embed(images - images.mean(0) if len(images) > 1 else images)


class OtherSizes(Plain):
    def set_sizes(self):
        super().set_sizes()
        self.num_prefix_tokens = 3

    def __init__(self, config, *, image_size, in_channels):
        super().__init__(config, image_size=image_size, in_channels=in_channels)
        self.num_prefix_tokens = 1


class ReadsValues(Plain):
    def __init__(self, config, *, image_size, in_channels):
        super().__init__(config, image_size=image_size, in_channels=in_channels)
        self.spread = float(self.body.cls_token.std())


class NeedsFloat(Plain):
    def embed(self, images):
        tokens = super().embed(images)
        if not tokens.is_meta:
            tokens.detach().numpy()
        return tokens


class Forgetful(Plain):
    """Detaches what it would recompute."""

    def _run(self, block, x, bias):
        if self.grad_checkpointing and self.training:
            return checkpoint(block, x.detach().requires_grad_(), use_reentrant=False)
        return super()._run(block, x, bias)


class SmallSwinConfig(SwinConfig):
    patch_size: int = 4
    embed_dim: int = 16
    depths: tuple[int, ...] = (2, 1)
    num_heads: tuple[int, ...] = (2, 2)
    window: int = 4


class PlainSwin(Swin):
    Config = SmallSwinConfig


class SortedCells(PlainSwin):
    def encode_visible(self, tokens, keep):
        return super().encode_visible(tokens, keep.sort().values)


class FirstMask(PlainSwin):
    """Takes the mask of the first image for all, turned around if there is one per image."""

    def encode_visible(self, tokens, keep):
        return super().encode_visible(tokens, keep[:1] if len(keep) == 1 else keep[:1].flip(1))


class SeesMaskedCells(PlainSwin):
    def encode_visible(self, tokens, keep):
        return (
            self.encode(tokens)
            .flatten(2)
            .mT.gather(1, keep.expand(len(tokens), -1).unsqueeze(-1).expand(-1, -1, self.out_dim))
        )


class AddsTheMask(PlainSwin):
    def encode_mixed(self, tokens, mask):
        return super().encode_mixed(tokens, mask) + 1


class MixesImages(PlainSwin):
    def encode_mixed(self, tokens, mask):
        return self.encode(tokens)


class ClaimsANorm(Plain):
    can = Plain.can | {"normed-tokens"}


WRONG: dict[str, list[tuple[type[Encoder], str]]] = {
    "metadata_is_complete": [(NoKind, "no `kind`")],
    "options_are_plain": [(Odd, "JSON cannot hold")],
    "files_count_by_content": [(ByName, "'table' enters the fingerprint by the name of its file")],
    "sizes_are_declared": [(NoStride, "stride is None")],
    "tokens_have_their_shape": [
        (TokensFirst, "embed has shape [3, 16, 8, 8], and by the declared sizes [3, 8, 8, 16]")
    ],
    "normed_tokens_are_normed": [(ClaimsANorm, "grow with the images")],
    "map_has_its_shape": [(WrongDim, "encode has shape [3, 32, 8, 8]")],
    "layers_have_their_form": [
        (LayersTwice, "returns 4 layers"),
        (PooledToken, "layer 0: pooled is not the mean of dense"),
        (IgnoresLast, "does not end with that layer's features"),
    ],
    "last_features_equal_encode": [(NoFinalNorm, "apply the final norm in both")],
    "pyramid_is_as_declared": [(WrongPyramid, "map 0 of pyramid for 32 x 32 px has shape [3, 16, 8, 8]")],
    "pyramid_takes_other_sizes": [(OneSize, "one size only")],
    "encoding_all_tokens_equals_encode": [(Unordered, "differs from encode")],
    "dropped_tokens_are_not_seen": [(SeesAll, "changes with a dropped token")],
    "visible_cells_stand_alone": [
        (SortedCells, "of all cells differs from encode"),
        (FirstMask, "with one mask per image differs"),
        (SeesMaskedCells, "changes with a masked cell"),
    ],
    "mixed_images_stay_apart": [
        (AddsTheMask, "that is not mixed differs from encode"),
        (MixesImages, "changes with the other"),
    ],
    "layers_come_in_the_order_asked_for": [(SortedLayers, "keep the order")],
    "attention_is_a_distribution": [(Unscaled, "do not sum to 1")],
    "further_blocks_go_on_from_a_layer": [
        (NormedTwice, "apply the final norm alone"),
        (OneBlock, "gives 1 blocks"),
        (Backwards, "apply them in their order"),
    ],
    "block_input_has_the_form_of_a_layer": [
        (NoPrefixInput, "block_input: sequence has shape [3, 64, 16]"),
        (SortedInput, "keep their order"),
    ],
    "mask_tokens_join_late": [
        (MirrorsLate, "without masked patches differs from encode"),
        (DoublesTheToken, "differs from encode_masked"),
    ],
    "abilities_agree_with_the_sizes": [(Boastful, 'can has "class-token", and num_prefix_tokens is 0')],
    "depths_are_in_range": [(TooDeep, "layer_of('body.norm.weight') is 9")],
    "depths_follow_the_layers": [(Reversed, "acts in an earlier layer")],
    "undecayed_names_exist": [(UndecayedGhost, "names 'cls_token', which is no parameter")],
    "state_round_trips": [(Unstored, "gives other features")],
    "evaluation_is_deterministic": [(Restless, "change calls")],
    "batch_size_does_not_matter": [(Centred, "depend on its batch")],
    "sizes_without_weights_are_equal": [(OtherSizes, "num_prefix_tokens is 3 without weights and 1 with them")],
    "builds_on_the_meta_device": [(ReadsValues, "meta")],
    "runs_in_bf16": [(NeedsFloat, "BFloat16")],
    "checkpointing_gives_equal_gradients": [(Forgetful, "gradients differ")],
}


def test_each_check_has_a_wrong_encoder():
    assert set(WRONG) == {one.name for one in ENCODER_CHECKS}


def test_honest_encoders_pass():
    assert skipped(Plain, {}) == {*CELLS, NORMED}
    assert skipped(PlainSwin, {}) == {*DROPS, *BLOCKS, ATTENTION}


@pytest.mark.parametrize(
    ("name", "encoder", "text"),
    [(name, encoder, text) for name, wrong in WRONG.items() for encoder, text in wrong],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_wrong_encoder_fails_its_check_and_no_other(name, encoder, text):
    failures = {result.name: result.message for result in check_encoder(encoder) if result.status == "failed"}
    assert set(failures) == {name}
    assert text in failures[name]
    assert "; " in failures[name]
    assert "test_encoders.py:" in failures[name]
