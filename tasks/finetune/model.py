"""The classifier that is fine-tuned, and one step of its training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mimbench.api import (
    DeviceTransform,
    Encoder,
    Erasing,
    InputConfig,
    Mixing,
    StepOutput,
    check_position,
    encoder_layers,
    rebuild_encoder,
    require_abilities,
    resize_positions,
)
from mimbench_tasks.finetune.config import FinetuneConfig

EPS = 1e-6
"""Of the norm after pooling, in all three official codes."""


class Classifier(nn.Module):
    """images float [B, C, S, S] or clips [B, C, T, S, S], normalised -> logits [B, classes]."""

    def __init__(self, encoder: Encoder, config: FinetuneConfig, classes: int) -> None:
        """The head is drawn from the global torch generator."""
        super().__init__()
        self.encoder = encoder
        self.pooling, self.fresh = config.pooling, config.norm == "fresh"
        self.fc_norm = nn.LayerNorm(encoder.out_dim, eps=EPS) if self.fresh else nn.Identity()
        self.head = nn.Linear(encoder.out_dim, classes)
        nn.init.trunc_normal_(self.head.weight, std=config.head_std)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        last = self.encoder.layers(images, final_norm=not self.fresh)[-1]
        return self.head(self.fc_norm(last.pool(self.pooling)))


class FinetuneTraining(nn.Module):
    """A classifier as the engine trains it. The loader gives (uint8 images [B, C, h, w], int64 labels [B])."""

    def __init__(
        self, classifier: Classifier, config: FinetuneConfig, input_config: InputConfig, *, batched: bool
    ) -> None:
        """`batched`: whole images arrive and are cropped here, on the device; else they arrive cropped."""
        super().__init__()
        encoder = classifier.encoder
        self.classifier, self.smoothing = classifier, config.smoothing
        self.transform = DeviceTransform(input_config, encoder.in_channels, train=True, batched=batched)
        self.erase = Erasing(config.erase_prob) if config.erase_prob else None
        self.mix = _mixing(config, classifier.head.out_features) if config.mixes else None
        self.ema: AveragedModel | None = None
        if config.ema_decay is not None:
            self.ema = AveragedModel(classifier, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
            self.ema.requires_grad_(False)
        self.num_layers = encoder.num_layers
        self.layer_of: Callable[[str], int] = encoder_layers(self, encoder)
        listed = set() if config.decay_tokens else encoder.no_weight_decay()
        self._no_decay = {f"classifier.encoder.{name}" for name in listed} | set(config.no_decay)

    @property
    def scored(self) -> nn.Module:
        """What is evaluated: the moving average of the weights, if there is one."""
        return self.classifier if self.ema is None else self.ema.module

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        """All that is random follows from `generator`, freshly seeded for this step, and torch's own."""
        device, seed = generator.device, generator.initial_seed()
        images = self.transform(batch[0].to(device, non_blocking=True), generator)
        labels = batch[1].to(device, non_blocking=True)
        if self.erase is not None:
            images = self.erase(images.contiguous(), seed + 1)
        if self.mix is None:
            return StepOutput(F.cross_entropy(self.classifier(images).float(), labels, label_smoothing=self.smoothing))
        images, targets = self.mix(images.contiguous(), labels, seed + 1)
        return StepOutput(F.cross_entropy(self.classifier(images).float(), targets))

    def after_step(self, progress: float) -> None:
        if self.ema is not None:
            self.ema.update_parameters(self.classifier)

    def no_weight_decay(self) -> set[str]:
        return self._no_decay


def build_classifier(encoder: Encoder, config: FinetuneConfig, image_size: int, classes: int, seed: int) -> Classifier:
    """A classifier around a copy of `encoder`, on the CPU, with its weights or fresh ones; equal seeds, equal heads.

    Raises:
        InputError: the encoder has no place for an option, or no class token to pool.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        adapted = adapt(encoder, config, image_size)
        if not config.from_scratch:
            adapted.load_state_dict(resize_positions(encoder.state_dict(), adapted))
        classifier = Classifier(adapted, config, classes)
    freeze_unreached(classifier)
    return classifier


def adapt(encoder: Encoder, config: FinetuneConfig, image_size: int) -> Encoder:
    """A new encoder with the options and image size that are fine-tuned with, and fresh weights.

    Raises:
        InputError: as `build_classifier`.
    """
    encoder.check_pooling(config.pooling)
    optional = ("drop_path", "position", "window")
    changes: dict[str, Any] = {"attention_dropout": config.attention_dropout}
    changes |= {name: getattr(config, name) for name in optional if getattr(config, name) is not None}
    check_position(config.position, encoder)
    adapted = rebuild_encoder(encoder, image_size=image_size, **changes)
    if not config.from_scratch and not _fits(encoder, adapted):
        require_abilities(f"task.image_size {image_size} px", {"any-size"}, encoder)
    return adapted


def _fits(encoder: Encoder, adapted: Encoder) -> bool:
    """Whether the weights have the shapes of the adapted encoder, once position tables are resampled."""
    resized = resize_positions(encoder.state_dict(), adapted)
    return all(name not in resized or resized[name].shape == one.shape for name, one in adapted.state_dict().items())


def freeze_unreached(classifier: Classifier) -> None:
    """Freeze what the logits do not depend on (a final norm that is left out): distributed training would wait for it.

    Found by one backward pass on the meta device, which computes nothing.
    """
    encoder = classifier.encoder
    parameters = {
        name: torch.empty_like(parameter, device="meta", requires_grad=parameter.requires_grad)
        for name, parameter in classifier.named_parameters()
    }
    buffers = {name: torch.empty_like(buffer, device="meta") for name, buffer in classifier.named_buffers()}
    images = torch.empty(2, *encoder.input_shape, device="meta")
    functional_call(classifier.eval(), {**parameters, **buffers}, (images,)).sum().backward()
    for name, parameter in classifier.train().named_parameters():
        if parameters[name].grad is None:
            parameter.requires_grad_(False)


def _mixing(config: FinetuneConfig, classes: int) -> Mixing:
    return Mixing(
        mixup=config.mixup,
        cutmix=config.cutmix,
        probability=config.mixup_prob,
        switch=config.switch_prob,
        smoothing=config.smoothing,
        classes=classes,
        group=config.mix_group,
    )
