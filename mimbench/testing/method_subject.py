"""A method under check: small encoders, batches of images, and short trainings of it on the CPU."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.contract import Batch, Config, Encoder, FitReport, InputConfig, Method, Stage, StepOutput, TrainConfig
from mimbench.contract.input import image_shape
from mimbench.encoders.convnet import ConvNeXt
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench.errors import NotSupported
from mimbench.testing.checks import Failure, Skip
from mimbench.testing.form import make_config
from mimbench.testing.tensors import seeded

CLASSES = ("a", "b", "c", "d", "e")
IMAGES = 8
"""Images per batch."""
_RATE = 1e-3
_ENCODERS: Mapping[str, tuple[type[Encoder], Mapping[str, Any]]] = {
    "vit": (ViT, {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}),
    "swin": (Swin, {"patch_size": 2, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window": 4}),
    "convnet": (ConvNeXt, {"patch_size": 2, "dims": (8, 16), "depths": (1, 1), "layer_scale": 0.1}),
}
"""A small encoder per kind; both strides are 4 px."""


class MethodSubject:
    """A method with its options, and the encoder that it is checked around."""

    kind = "method"

    def __init__(
        self,
        method: type[Method],
        options: Mapping[str, Any] | Config | None,
        encoder: type[Encoder] | str | None,
        encoder_options: Mapping[str, Any] | Config | None,
        input_config: InputConfig,
        channels: int,
    ) -> None:
        self.plugin, self._options = method, options
        self._encoder, self._encoder_options = encoder, encoder_options
        self.input, self.channels = input_config, channels
        self._fitted: dict[str, dict[str, Tensor]] = {}

    def make_config(self) -> Config:
        return make_config(self.plugin, self._options, "method")

    def make_encoder(self, seed: int = 0, **further: Any) -> Encoder:
        """further: options of the encoder besides those of the check."""
        encoder, options = self._small_encoder() if not inspect.isclass(self._encoder) else (self._encoder, None)
        with seeded(seed):
            config = make_config(encoder, self._encoder_options or options, "encoder")
            if further:
                config = type(config).model_validate(config.model_dump() | further)
            return encoder.build(
                config, image_size=self.input.image_size, in_channels=self.channels, frames=self.input.frames
            )

    def describe_encoder(self) -> str:
        encoder = self._encoder if inspect.isclass(self._encoder) else self._small_encoder()[0]
        return f"a small {encoder.__name__} at {self.input.image_size} px"

    def _small_encoder(self) -> tuple[type[Encoder], Mapping[str, Any]]:
        """The first one that can do what the method needs, or the one of the chosen kind."""
        for kind, (encoder, options) in _ENCODERS.items():
            chosen = kind == self._encoder or (self._encoder is None and self.plugin.encoder_needs <= encoder.can)
            if chosen:
                return encoder, options
        which = self._encoder or f"that can do all of {', '.join(sorted(self.plugin.encoder_needs))}"
        raise Failure(f"there is no small encoder {which}; pass encoder=MyEncoder")

    def build(
        self, seed: int = 0, *, prepared: bool = True, encoder_options: Mapping[str, Any] = MappingProxyType({})
    ) -> Method:
        """The method in training mode.

        Args:
            seed: of the initial weights.
            prepared: call `prepare`. A method whose state is loaded is not prepared.
            encoder_options: further options of the encoder.
        """
        config, encoder = self.make_config(), self.make_encoder(seed, **encoder_options)
        with seeded(seed):
            method = self.plugin(config, encoder)
            if prepared:
                method.prepare(_FewImages(self))
        return method.train()

    def images(self, count: int = IMAGES, seed: int = 0) -> Tensor:
        """Smooth images with a little noise: float [count, C, S, S], or clips [count, C, T, S, S], about in [-3, 3]."""
        generator = torch.Generator().manual_seed(seed)
        shape = image_shape(self.channels, self.input.image_size, self.input.frames)
        coarse = torch.randn(count, *shape[:-2], 4, 4, generator=generator)
        noise = torch.randn(count, *shape, generator=generator)
        return _enlarged(coarse, shape[-1]) + 0.1 * noise

    def batch(self, count: int = IMAGES, seed: int = 0, progress: float = 0.0) -> Batch:
        """Every view that the method asks for, as float [count, C, S, S] or clips, with the S of that view."""
        images = self.images(count, seed)
        sizes = [view.image_size for view in self.plugin.views(self.make_config(), self.input)]
        views = tuple(_enlarged(images, size) if size != images.shape[-1] else images.clone() for size in sizes)
        labels = torch.arange(count) % len(CLASSES) if "labels" in self.plugin.supervision else None
        return Batch(views, labels, progress)

    def at_both_ends(self) -> Iterator[Method]:
        """The method as it is outside of a training, and another one as it is before the first step."""
        yield self.build()
        method = self.build()
        self.begin_step(method, 0.0)
        yield method

    def begin_step(self, method: Method, progress: float) -> None:
        """What the engine does before the mask of a step is drawn."""
        method.progress = progress
        method.before_step(progress)

    def step(self, method: Method, batch: Batch, seed: int = 0) -> StepOutput:
        """One step as the engine makes it: after `before_step`, with a seeded generator, and torch's own seeded too.

        Raises:
            Skip: the method is not trained.
        """
        if not self.plugin.pretrains:
            raise Skip("it is not trained: pretrains = False")
        with seeded(seed):
            self.begin_step(method, batch.progress)
            try:
                return method.step(batch, torch.Generator().manual_seed(seed))
            except NotSupported as error:
                raise Failure(f"a step is not supported: {error}; define step, or set pretrains = False") from error

    def train(self, method: Method, steps: range, optimizer: torch.optim.Optimizer | None = None) -> list[float]:
        """Train on other images in each step, and return the losses. Equal `steps` mean equal images and seeds."""
        optimizer = optimizer or make_optimizer(method)
        losses = []
        for number in steps:
            output = self.step(method, self.batch(seed=number, progress=number / 100), number)
            update(method, optimizer, output.loss, number / 100, (number + 1) / 100)
            losses.append(output.loss.item())
        return losses

    def grid(self, method: Method, mask: Any) -> Tensor:
        """The mask as a grid [B, *cells].

        Raises:
            Skip: this method's masks have none.
        """
        cells = method.masked_cells(mask)
        if cells is None and isinstance(mask, Tensor) and self.plugin.masked_cells is Method.masked_cells:
            return mask  # of a wrong form, which its own check reports
        if cells is None:
            raise Skip("its masks have no grid: masked_cells returns None")
        return cells

    def shaken(self) -> Method:
        """The method in evaluation mode with every trainable weight moved, so that none of them is zero."""
        method = self.build().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in method.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return method


def _enlarged(images: Tensor, size: int) -> Tensor:
    """Images [B, C, H, W] or clips [B, C, T, H, W] at another size."""
    return F.interpolate(images.flatten(1, -3), size, mode="bilinear").unflatten(1, images.shape[1:-2])


def make_optimizer(method: Method) -> torch.optim.Optimizer:
    return torch.optim.AdamW([one for one in method.parameters() if one.requires_grad], _RATE)


def update(
    method: Method, optimizer: torch.optim.Optimizer, loss: Tensor, before: float = 0.0, after: float = 1.0
) -> None:
    """One update, as the engine makes it; `before` and `after` are the progress of the training."""
    optimizer.zero_grad()
    loss.backward()
    method.before_update(before)
    optimizer.step()
    method.after_step(after)


class _FewImages(Stage):
    """The stage of a check: some images, and trainings of two steps."""

    classes = CLASSES
    seed = 0
    device = torch.device("cpu")

    def __init__(self, subject: MethodSubject) -> None:
        self._subject, self.input = subject, subject.input

    def images(self) -> Iterator[Tensor]:
        for seed in range(4):
            yield self._subject.images(32, seed)

    def fit(self, model: nn.Module, config: TrainConfig, *, label: str, options: str) -> FitReport:
        trainable: Any = model
        optimizer = torch.optim.AdamW(model.parameters(), config.lr)
        losses: list[float] = []
        for number, images in zip(range(2), self.images(), strict=False):
            loss = trainable.step(Batch((images,)), torch.Generator().manual_seed(number)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return FitReport(losses, 0.0, 64, 2, None, "fp32")

    def compute_once(self, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        fitted, key = self._subject._fitted, repr(sorted(identity.items()))
        if key not in fitted:
            fitted[key] = {name: value.detach().cpu() for name, value in make().items()}
        return copy.deepcopy(fitted[key])

    def say(self, text: str) -> None:
        return
