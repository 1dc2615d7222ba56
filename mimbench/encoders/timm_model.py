"""Any model of timm by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mimbench.compute.kinds import mark_repeated
from mimbench.contract import Config, Encoder, Features, InputError
from mimbench.encoders.timm_body import Body, build_body, find_head_norm, inspect_body
from mimbench.encoders.timm_weights import load_timm_weights
from mimbench.masks import patchify, unpatchify


class TimmConfig(Config):
    """A model by the name that timm gives it, for the recipe's image size and the dataset's channels."""

    model: str
    """timm's name, such as "vit_small_patch16_224" or "convnext_tiny"."""
    weights: Path | None = None
    """A file with weights to start from, safetensors or torch.save, in timm's names or those that timm converts. Its
    content belongs to the fingerprint. Nothing is downloaded."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth rate of the last block."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of timm's model, such as patch_size or embed_dim of a ViT."""


class TimmModel(Encoder):
    """A model of timm, with timm's parameter names and initial weights.

    A layer is what timm calls a feature: a block of a plain model, a stage of one with several scales. Tokens of
    `embed` are the output of the model's patch embedding. If its stem is none (ResNet), they are the pixels of
    patches. If the trunk ends without a norm, the norm before timm's classifier is the final norm, applied per patch.
    """

    kind: ClassVar[str] = "timm"
    can: frozenset[str] = frozenset(
        {
            *("mask-tokens", "separate-patches", "normed-tokens", "one-grid", "visible-only", "class-token"),
            *("pyramid", "any-size", "drop-path", "grad-checkpointing"),
        }
    )
    version: ClassVar[str] = "1"
    Config = TimmConfig
    config: TimmConfig
    parts: Body
    body: Any  # timm's modules carry no types

    def __init__(self, config: TimmConfig, *, image_size: int, in_channels: int) -> None:
        super().__init__(config, image_size=image_size, in_channels=in_channels)
        self.body = build_body(
            config.model,
            config.arguments,
            image_size=image_size,
            channels=in_channels,
            drop_path=config.drop_path,
        )
        if config.weights is not None and not next(self.body.parameters()).is_meta:
            load_timm_weights(self.body, config.model, config.weights, channels=in_channels, optional=self.parts.unused)
        for name, parameter in self.body.named_parameters():
            if name in self.parts.unused:
                parameter.requires_grad_(False)
        mark_repeated(self.body)

    def set_sizes(self) -> None:
        config = self.config
        self.parts = parts = inspect_body(
            config.model, config.arguments, image_size=self.image_size, channels=self.in_channels
        )
        self.can = parts.can
        self.out_dim, self.stride = parts.dims[-1], parts.strides[-1]
        self.num_layers, self.num_prefix_tokens = len(parts.dims), parts.prefix
        self.patch_size = parts.stem.patch_size if parts.stem else parts.strides[0]
        self.embed_dim = parts.stem.dim if parts.stem else self.patch_size**2 * self.in_channels
        if self.image_size % self.patch_size:
            raise InputError(
                f"image size {self.image_size} px is not a multiple of the patches of timm's {config.model}, "
                f"{self.patch_size} px; change input.image_size"
            )

    def embed(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if "any-size" not in self.can and (height, width) != (self.image_size,) * 2:
            raise InputError(
                f"timm's {self.config.model} takes images of {self.image_size} px only, not {height} x {width}"
            )
        if height % self.patch_size or width % self.patch_size:
            raise InputError(f"an image of {height} x {width} px is not a multiple of the patch, {self.patch_size} px")
        stem = self.parts.stem
        if stem is None:
            return patchify(images, self.patch_size)
        tokens = getattr(self.body, stem.name)(images)
        if stem.layout == "NLC":
            return tokens.unflatten(1, (height // self.patch_size, width // self.patch_size))
        return tokens.permute(0, 2, 3, 1) if stem.layout == "NCHW" else tokens

    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        if keep is not None and "visible-only" not in self.can:
            raise InputError(f"timm's {self.config.model} cannot drop masked patches; encode all of them (keep=None)")
        indices = self.layer_indices(layers)
        computed = sorted(set(indices))
        with_final = final_norm and computed[-1] == self.num_layers - 1
        options: dict[str, Any] = {
            "indices": [index + self.parts.first for index in computed],
            "output_fmt": "NCHW" if keep is None else "NLC",
            "stop_early": not with_final,
            "intermediates_only": not with_final,
        }
        if self.parts.prefix:
            options["return_prefix_tokens"] = True
        with self._tokens_for_images(tokens, keep) as images:
            ran = self.body.forward_intermediates(images, **options)
        outputs = ran[1] if with_final else ran
        features = {index: self._features(output) for index, output in zip(computed, outputs, strict=True)}
        if with_final:
            features[computed[-1]] = self._normed(features[computed[-1]], final=ran[0])
        return [features[index] for index in indices]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """The last layer of each stride; the coarsest has passed the final norm.

        Models of timm drop rows and columns that a stride does not divide. So images are padded with zeros first.
        """
        strides = self.pyramid_strides
        levels = [max(i for i, stride in enumerate(self.parts.strides) if stride == s) for s in strides]
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % strides[-1], 0, -height % strides[-1]))
        maps = [features.dense for features in self.forward_layers(self.embed(images), levels)]
        return [one[..., : -(-height // s), : -(-width // s)] for one, s in zip(maps, strides, strict=True)]

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.parts.strides)))

    @property
    def pyramid_dims(self) -> tuple[int, ...]:
        return tuple(dict(zip(self.parts.strides, self.parts.dims, strict=True))[s] for s in self.pyramid_strides)

    def layer_of(self, parameter: str) -> int:
        """By timm's groups of parameters (`group_matcher`)."""
        return self.parts.layer_of[parameter.removeprefix("body.")]

    def no_weight_decay(self) -> set[str]:
        """As timm's model has it."""
        names = set(self.body.no_weight_decay()) if hasattr(self.body, "no_weight_decay") else set()
        return {f"body.{name}" for name, _ in self.body.named_parameters() if name in names}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        if "grad-checkpointing" not in self.can:
            super().set_grad_checkpointing(enable)
        self.body.set_grad_checkpointing(enable)

    @contextmanager
    def _tokens_for_images(self, tokens: Tensor, keep: Tensor | None) -> Iterator[Tensor]:
        """Images for timm's model. Inside this context, its stem outputs `tokens`, and it drops others than `keep`."""
        stem = self.parts.stem
        if stem is None:
            yield unpatchify(tokens, self.patch_size)
            return
        if stem.layout == "NLC":
            output = tokens.flatten(1, 2)
        else:
            output = tokens.permute(0, 3, 1, 2) if stem.layout == "NCHW" else tokens
        height, width = (side * self.patch_size for side in tokens.shape[1:3])
        images = tokens.new_empty(()).expand(len(tokens), self.in_channels, height, width)  # only its shape is used
        with ExitStack() as stack:
            stack.enter_context(_replaced(getattr(self.body, stem.name), lambda _: output))
            if keep is not None:
                stack.enter_context(_replaced(self.body.patch_drop, lambda x: self._drop_masked(x, keep)))
            yield images

    def _drop_masked(self, x: Tensor, keep: Tensor) -> Tensor:
        prefix, patches = x[:, : self.parts.prefix], x[:, self.parts.prefix :]
        return torch.cat((prefix, patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))), 1)

    def _features(self, output: Any) -> Features:
        dense, prefix = output if isinstance(output, tuple | list) else (output, None)
        if dense.ndim == 3:
            dense = dense.transpose(1, 2).unsqueeze(2)
        return Features.from_map(dense, prefix)

    def _normed(self, last: Features, final: Tensor) -> Features:
        """`last` with the values of timm's final features, after the norm before its classifier if there is one."""
        dense, prefix = last.dense, last.prefix
        if self.parts.has_final:
            dense, prefix = self._split(final, last)
        norm = find_head_norm(self.body)
        if norm is not None:
            of_channels = nn.LayerNorm.forward  # timm's LayerNorm2d is one for maps; here channels come last
            dense = of_channels(norm, dense.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[arg-type]
            prefix = of_channels(norm, prefix)  # type: ignore[arg-type]
        return Features.from_map(dense, prefix)

    def _split(self, final: Tensor, last: Features) -> tuple[Tensor, Tensor]:
        """Map and prefix tokens of timm's final features, in the shapes of `last`."""
        if final.ndim == 4:
            channels_last = "NHWC" in str(getattr(self.body, "output_fmt", ""))
            return (final.permute(0, 3, 1, 2) if channels_last else final), last.prefix
        extra = final.shape[1] - last.dense[0, 0].numel()
        dense = final[:, extra:].transpose(1, 2).unflatten(2, last.dense.shape[2:])
        return dense, final[:, : self.parts.prefix]


@contextmanager
def _replaced(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside this context, `forward` runs in place of the forward pass of `module`."""
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
