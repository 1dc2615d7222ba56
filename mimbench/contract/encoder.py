"""The encoder contract: what methods and tasks call on a backbone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from mimbench.contract.encoder_sizes import SizedEncoder
from mimbench.contract.features import Features
from mimbench.errors import InputError, NotSupported, nearest
from mimbench.masks import replace_masked


class Encoder(SizedEncoder):
    """A backbone for square images of `image_size` px; "any-size" in `can` says that it takes other sizes too.

    With "clips" in `can` it also takes clips of `frames` frames: [B, C, T, H, W] instead of [B, C, H, W]. Then tokens
    are [B, T', h, w, embed_dim], maps [B, D, T', h, w] and masks [B, T', h, w], with T' = frames / tubelet. Its
    `__init__` takes `frames`, and passes it on.

    A subclass defines `embed`, `forward_layers` and `layer_of`. Everything else has a default.
    """

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> patch tokens [B, h, w, embed_dim], without positions and prefix tokens.

        Clips [B, C, T, H, W] -> [B, T', h, w, embed_dim].
        """

    @abstractmethod
    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        """Features after some layers, from one forward pass that ends at the last of them.

        The features of the encoder's last layer have passed the final norm if `final_norm` is true.

        Args:
            tokens: [B, *grid, embed_dim], from `embed`; a method may have changed them (mask tokens, mixing).
            layers: indices of layers; negative values count from the end. None means all layers.
            keep: indices of K visible patches in row-major order, int64 [B, K]. Only these are encoded, so that masked
                patches cost nothing (MAE). None encodes all patches. Needs "visible-only" in `can`.
            final_norm: whether to apply the final norm to the features of the encoder's last layer.

        Returns:
            Features per entry of `layers`, in its order. With `keep`, their patches have the order of `keep`.

        Raises:
            InputError: this encoder has no such layer, or cannot encode visible patches only.
        """

    def block_input(self, tokens: Tensor, *, keep: Tensor | None = None) -> Features:
        """What the first block gets: prefix tokens and patches with their positions. Needs "block-input" in `can`.

        Args:
            tokens, keep: as for `forward_layers`.

        Raises:
            NotSupported: this encoder has no such blocks.
        """
        raise NotSupported(f"a {self.kind} encoder does not output what its first block gets")

    def forward_tokens(self, tokens: Tensor, keep: Tensor | None = None) -> Features:
        """Features of the last layer, after the final norm: the map and the prefix tokens.

        Args and errors are those of `forward_layers`.
        """
        return self.forward_layers(tokens, (-1,), keep=keep)[0]

    def encode(self, tokens: Tensor) -> Tensor:
        """Patch tokens [B, *grid, embed_dim] from `embed` -> the final map [B, out_dim, *map_grid]."""
        return self.forward_tokens(tokens).dense

    def encode_masked(self, images: Tensor, mask: Tensor, token: Tensor) -> Tensor:
        """Encode images with a mask token in place of each masked patch (SimMIM, BEiT).

        Without "separate-patches" in `can` (ResNet), visible tokens still contain masked pixels. Blank those in
        `images` first.

        Args:
            images: [B, C, H, W], or clips [B, C, T, H, W].
            mask: bool [B, *cells] on any grid with the axes of `grid`, True = masked. A patch that it touches counts as
                masked.
            token: [1, 1, 1, embed_dim].

        Returns:
            The final map [B, out_dim, *map_grid].
        """
        return self.encode(replace_masked(self.embed(images), mask, token))

    def encode_late(self, tokens: Tensor, keep: Tensor, token: Tensor, late: int) -> Tensor:
        """Encode the visible patches alone, and all patches in the last `late` blocks, where mask tokens join.

        If all patches are visible, the result is that of `encode`; if `late` is the number of blocks, that of
        `encode_masked`. Needs "late-tokens" in `can`.

        Args:
            tokens: [B, h, w, embed_dim], from `embed`.
            keep: int64 [B, K], indices of the visible patches in row-major order.
            token: [1, 1, 1, embed_dim]. Absolute positions are added to it.
            late: number of blocks, from 1 to `num_layers`.

        Returns:
            The final map [B, out_dim, h, w].

        Raises:
            NotSupported: this encoder has no such pass.
        """
        raise NotSupported(f"a {self.kind} encoder cannot let mask tokens join in its last blocks")

    def encode_visible(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Encode the visible cells of the last map only, as if the masked ones did not exist (GreenMIM).

        Needs "visible-cells" in `can`.

        Args:
            tokens: [B, h, w, embed_dim], from `embed`.
            keep: int64 [B, K], or [1, K] for all images: indices of the visible cells of the last map, row-major.

        Returns:
            [B, K, out_dim], after the final norm, in the order of `keep`.

        Raises:
            NotSupported: this encoder has no such pass.
        """
        raise NotSupported(f"a {self.kind} encoder cannot drop the masked cells of its last map")

    def encode_mixed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Encode images that are mixed of two each, whose tokens attend to those of the same image only (MixMIM).

        Needs "mixed-images" in `can`.

        Args:
            tokens: [B, h, w, embed_dim], from `embed`, of one image where `mask` is true, of another elsewhere.
            mask: bool [B, Gh, Gw], or [1, Gh, Gw] for all images, on the grid of the last map.

        Returns:
            The final map [B, out_dim, h', w'].

        Raises:
            NotSupported: this encoder has no such pass.
        """
        raise NotSupported(f"a {self.kind} encoder cannot keep the tokens of mixed images apart")

    def layers(self, images: Tensor, last: int = -1, *, final_norm: bool = True) -> list[Features]:
        """Features after each layer up to and including `last`, from one forward pass.

        Args:
            images: [B, C, H, W].
            last: index of the last layer to compute; negative values count from the end.
            final_norm: apply the final norm to the features of the encoder's last layer, as `encode` does.
        """
        return self.forward_layers(self.embed(images), range(self.layer_index(last) + 1), final_norm=final_norm)

    def features(self, images: Tensor, layer: int = -1) -> Features:
        """Features after `layer`. Those of the last layer (-1) have passed the final norm, as in `encode`."""
        return self.forward_layers(self.embed(images), (layer,))[0]

    def mlp_outputs(self, tokens: Tensor) -> list[Features]:
        """What the MLP of each layer adds to its residual branch, before LayerScale and drop path (data2vec 2.0).

        Needs "mlp-outputs" in `can`.

        Args:
            tokens: [B, *grid, embed_dim], from `embed`.

        Returns:
            Features per layer, not normed.

        Raises:
            NotSupported: this encoder does not return them.
        """
        raise NotSupported(f"a {self.kind} encoder does not return the outputs of its MLPs")

    def further_blocks(self, drop_path: Sequence[float]) -> nn.ModuleList:
        """New blocks of the encoder's own form, with initial weights, for `run_blocks`. They belong to the caller.

        They use the encoder's positions. Needs "further-blocks" in `can`.

        Args:
            drop_path: the rate of each block; there are as many blocks as rates.

        Raises:
            NotSupported: this encoder has no such blocks.
        """
        raise NotSupported(f"a {self.kind} encoder has no further blocks")

    def run_blocks(self, blocks: Iterable[nn.Module], features: Features, *, final_norm: bool = True) -> Features:
        """Pass features of all patches through blocks from `further_blocks`; with none, the final norm alone.

        Args:
            features: not normed, from `forward_layers(..., final_norm=False)`, with prefix tokens and a whole grid.
            final_norm: apply the encoder's final norm to the result.

        Raises:
            NotSupported: this encoder has no such blocks.
        """
        raise NotSupported(f"a {self.kind} encoder has no further blocks")

    def attention(self, images: Tensor) -> Iterator[Tensor]:
        """Attention weights, one layer at a time, for audits of what the encoder looks at. Needs "attention" in `can`.

        Args:
            images: [B, C, H, W]. In evaluation mode nothing is dropped.

        Returns:
            [B, heads, P + N, P + N] per layer: weights of queries (rows, each sums to 1) on keys, the P prefix tokens
            before the N patches in row-major order.

        Raises:
            NotSupported: this encoder has no global attention.
        """
        raise NotSupported(f"a {self.kind} encoder does not return attention weights")

    def layer_index(self, layer: int) -> int:
        """`layer` as a non-negative index. Raises InputError if this encoder has no such layer."""
        if not -self.num_layers <= layer < self.num_layers:
            raise InputError(f"layer {layer} is outside this encoder's {self.num_layers} layers")
        return layer % self.num_layers

    def layer_indices(self, layers: Sequence[int] | None) -> list[int]:
        """`layers` as non-negative indices; None means all. Raises InputError if this encoder has no such layer."""
        return list(range(self.num_layers)) if layers is None else [self.layer_index(layer) for layer in layers]

    def check_keep(self, keep: Tensor | None) -> None:
        """Raise InputError if `keep` is passed to `forward_layers` of an encoder that encodes all patches only."""
        if keep is not None and "visible-only" not in self.can:
            raise InputError(f"a {self.kind} encoder cannot drop masked patches; encode all of them (keep=None)")

    def check_pooling(self, pooling: str) -> None:
        """Raise InputError if `pooling` is unknown, or needs a class token that this encoder does not have."""
        known = ("mean", "token", "mean+token")
        if pooling not in known:
            raise InputError(f"unknown pooling {pooling!r}{nearest(pooling, known)}")
        if pooling != "mean" and "class-token" not in self.can:
            raise InputError(
                f'pooling {pooling!r} needs a class token, which this {self.kind} encoder does not have; use "mean"'
            )

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Feature maps for dense prediction. The default is the one map of `encode`.

        Args:
            images: [B, C, H, W]; `patch_size` divides H and W.

        Returns:
            One map [B, D, H/s, W/s] per stride s of `pyramid_strides`, the finest first.
        """
        return [self.encode(self.embed(images))]

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """px per cell of each map of `pyramid`."""
        return (self.stride,)

    @property
    def pyramid_dims(self) -> tuple[int, ...]:
        """Channels of each map of `pyramid`."""
        return (self.out_dim,)

    def use_windows(self, window: int, global_blocks: tuple[int, ...]) -> None:
        """Restrict attention in `pyramid` to `window` x `window` tokens, except in the global blocks (ViTDet).

        Raises:
            InputError: this encoder has no such windows, or there is no such block.
        """
        raise InputError(
            f"a {self.kind} encoder has no windowed attention to choose; set window to 0 (--set task.window=0)"
        )

    def add_relative_positions(self, image_size: int) -> None:
        """Add learned relative positions, initially zero, for the windows of `pyramid` at `image_size` px.

        Call it after `use_windows`. An encoder that was pretrained with relative positions keeps those.

        Raises:
            InputError: this encoder takes no relative positions.
        """
        raise InputError(f"a {self.kind} encoder takes no relative positions; set relative_positions to false")

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that `pretrain.start` names, as this encoder takes them. By default they stay as they are.

        An encoder of clips may take those of an encoder of images.

        Args:
            weights: state dict of an encoder, perhaps of another kind. What does not fit is refused later.

        Raises:
            InputError: the weights are of a kind that it takes, and these ones do not fit.
        """
        return dict(weights)

    @abstractmethod
    def layer_of(self, parameter: str) -> int:
        """Depth of a parameter, for layer decay: 0 for the stem, 1 to num_layers for the blocks, num_layers + 1 after.

        Args:
            parameter: its name in `named_parameters()`.
        """

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with two or more dimensions that get no weight decay. 1-D parameters never get any."""
        return set()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass. It saves memory and takes about a third more time.

        Raises:
            InputError: this encoder cannot do that.
        """
        raise InputError(f"a {self.kind} encoder has no gradient checkpointing")
