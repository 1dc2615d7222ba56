"""The classifier that is fine-tuned, and one step of its training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import accumulate
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
    InputError,
    Mixing,
    StepOutput,
    check_position,
    copy_weights,
    encoder_layers,
    rebuild_encoder,
    require_abilities,
    resize_positions,
    share_dropout,
    synchronise_batch_norms,
)
from mimbench_tasks.finetune.config import FinetuneConfig

EPS = 1e-6
"""Of the norm after pooling, in all three official codes."""


class Classifier(nn.Module):
    """images float [B, C, S, S] or clips [B, C, T, S, S], normalised -> logits [B, classes]."""

    def __init__(self, encoder: Encoder, config: FinetuneConfig, classes: int) -> None:
        """The head is drawn from the global torch generator.

        Raises:
            InputError: the encoder lacks a norm, or has fewer blocks than are to be trained.
        """
        super().__init__()
        self.encoder = encoder
        if config.trained_blocks is not None:
            _freeze_first_blocks(encoder, config.trained_blocks)
        self.pooling, self.norm_first = config.pooling, config.norm == "encoder"
        self.fc_norm = _norm_after_pooling(encoder, config)
        self.dropout = nn.Dropout(config.head_dropout)
        share_dropout(self.dropout)
        self.head = nn.Linear(encoder.out_dim, classes)
        nn.init.trunc_normal_(self.head.weight, std=config.head_std)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        last = self.encoder.layers(images, final_norm=self.norm_first)[-1]
        return self.head(self.dropout(self.fc_norm(last.pool(self.pooling))))

    def train(self, mode: bool = True) -> Classifier:
        """Modules of which nothing is trained stay as in evaluation: no dropout, fixed statistics."""
        super().train(mode)
        for module in self.encoder.modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()
        return self


class FinetuneTraining(nn.Module):
    """A classifier as the engine trains it. The loader gives (uint8 images [B, C, h, w], int64 labels [B])."""

    shares_batch = True

    def __init__(
        self, classifier: Classifier, config: FinetuneConfig, input_config: InputConfig, *, batched: bool
    ) -> None:
        """`batched`: whole images arrive and are cropped here, on the device; else they arrive cropped."""
        super().__init__()
        encoder = classifier.encoder
        self.classifier, self.smoothing, self.binary = classifier, config.smoothing, config.loss == "binary"
        self.transform = DeviceTransform(input_config, encoder.in_channels, train=True, batched=batched)
        self.erase = Erasing(config.erase_prob) if config.erase_prob else None
        self.mix = _mixing(config, classifier.head.out_features) if config.mixes else None
        self.ema: AveragedModel | None = None
        if config.ema_decay is not None:
            self.ema = AveragedModel(classifier, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
            self.ema.requires_grad_(False)
        self.num_layers, self.layer_of = _layers(self, encoder, config.layer_groups)
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
        if self.mix is not None:
            images, targets = self.mix(images.contiguous(), labels, seed + 1)
            return StepOutput(self._loss(self.classifier(images).float(), targets))
        if not self.binary:
            return StepOutput(F.cross_entropy(self.classifier(images).float(), labels, label_smoothing=self.smoothing))
        logits = self.classifier(images).float()
        targets = F.one_hot(labels, logits.shape[1]) * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        return StepOutput(self._loss(logits, targets))

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """targets: [B, classes], each row adding up to 1."""
        return F.binary_cross_entropy_with_logits(logits, targets) if self.binary else F.cross_entropy(logits, targets)

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
            copy_weights(encoder, adapted)
        classifier = Classifier(adapted, config, classes)
    freeze_unreached(classifier)
    synchronise_batch_norms(classifier)
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


def _freeze_first_blocks(encoder: Encoder, trained: int) -> None:
    if trained > encoder.num_layers:
        raise InputError(
            f"task.trained_blocks {trained} is more than the encoder's {encoder.num_layers} blocks; lower it"
        )
    if trained == encoder.num_layers:
        return
    for name, parameter in encoder.named_parameters():
        if encoder.layer_of(name) <= encoder.num_layers - trained:
            parameter.requires_grad_(False)


def _norm_after_pooling(encoder: Encoder, config: FinetuneConfig) -> nn.Module:
    """The norm of the pooled features. Without one, the encoder's final norm has come before the pooling.

    Raises:
        InputError: the encoder has no final LayerNorm whose weights it could have.
    """
    if config.norm == "encoder":
        return nn.Identity()
    if config.norm == "fresh":
        return nn.LayerNorm(encoder.out_dim, eps=EPS)
    last = encoder.num_layers + 1
    norms = [
        module
        for path, module in encoder.named_modules()
        if isinstance(module, nn.LayerNorm) and module.elementwise_affine and encoder.layer_of(f"{path}.weight") == last
    ]
    if len(norms) != 1 or norms[0].normalized_shape != (encoder.out_dim,):
        raise InputError(
            'task.norm "encoder-after-pooling" needs an encoder with one LayerNorm after its blocks, which this '
            f'{encoder.kind} encoder does not have; use "fresh" or "encoder"'
        )
    return copy.deepcopy(norms[0])


def _layers(model: nn.Module, encoder: Encoder, groups: Sequence[int] | None) -> tuple[int, Callable[[str], int]]:
    """How many layers lie between the stem and the head, and the layer of a parameter by its name in `model`.

    Raises:
        InputError: the groups do not add up to the blocks of the encoder.
    """
    layer_of = encoder_layers(model, encoder)
    if groups is None:
        return encoder.num_layers, layer_of
    if min(groups) < 1 or sum(groups) != encoder.num_layers:
        raise InputError(
            f"task.layer_groups {list(groups)} must be numbers of 1 or more that add up to the encoder's "
            f"{encoder.num_layers} blocks; they add up to {sum(groups)}"
        )
    ends = list(accumulate(groups))
    grouped = [0, *(1 + sum(end < block for end in ends) for block in range(1, sum(groups) + 1)), len(groups) + 1]
    return len(groups), lambda name: grouped[layer_of(name)]


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
