"""Options of the fine-tuning task."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mimbench.api import InputConfig, TaskConfig, TrainConfig, added, cosmetic


class FinetuneTrain(TrainConfig):
    """The budget; the defaults are those of a few thousand small images."""

    epochs: int | None = Field(12, ge=1)
    batch_size: int = Field(32, ge=1)
    base_lr: float = Field(3e-3, gt=0)
    workers: int = cosmetic(0, ge=0, le=1024)
    """For images that are augmented one by one, or read from files."""


class FinetuneConfig(TaskConfig):
    """What the encoder becomes, how images are shown to it, and how it is trained.

    An option of the input that is absent is as in the recipe's [input].
    """

    train: FinetuneTrain = FinetuneTrain()
    from_scratch: bool = False
    """Start from fresh weights instead of the pretrained ones; with --method random-init nothing is pretrained."""

    trained_blocks: int | None = added(None, ge=0)
    """Partial fine-tuning (MAE, arXiv:2111.06377, section 4.3): so many of the encoder's last blocks are trained, with
    the final norm and the head. What comes before keeps the pretrained weights and drops no paths. As many as the
    encoder has, or absent: all is trained."""

    pooling: Literal["mean", "token"] = "mean"
    """What the head sees: the mean over all patches, or the class token."""
    norm: Literal["encoder", "encoder-after-pooling", "fresh"] = "encoder"
    """encoder: its final norm, before pooling; encoder-after-pooling: its final LayerNorm with the pretrained weights,
    after pooling (CAE); fresh: a new LayerNorm after pooling, and no final norm."""
    head_std: float = Field(0.02, gt=0)
    """Standard deviation of the head's initial weights; its biases start at 0."""
    head_dropout: float = added(0.0, ge=0, lt=1)
    """Dropout of what the head sees."""
    drop_path: float | None = Field(0.0, ge=0, lt=1)
    """Rate of the encoder's last block, rising from 0 at its first, instead of the pretraining's rate. none: as
    pretrained, also for an encoder that cannot drop paths."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Of a ViT while it is fine-tuned; pretraining's own is not used."""
    position: Literal["relative-per-block", "learned", "sincos-rows-first-and-relative"] | None = None
    """A ViT's positions while it is fine-tuned, starting from the pretrained ones; absent: as pretrained.
    sincos-rows-first-and-relative: CAE's fixed ones, and a table for each block besides, zero at first."""
    window: int | None = Field(None, ge=1)
    """A Swin's window, tokens a side; absent: as pretrained."""
    no_decay: tuple[str, ...] = ()
    """Parameters that are not decayed, by name or pattern, besides biases, 1-D ones and the encoder's own list."""
    layer_groups: tuple[int, ...] | None = added(None, min_length=1)
    """Blocks that layer decay treats as one layer, the first group first: [3, 2] gives blocks 1 to 3 one rate and
    blocks 4 and 5 another. A stage's downsampling belongs to the block that follows it. Absent: each block is a
    layer."""
    decay_tokens: bool = added(False)
    """Decay the encoder's own list too: class token, registers and learned positions (MaskFeat)."""

    image_size: int | None = Field(None, ge=4)
    """Side of what the encoder sees, px; position tables are resampled."""
    crop_scale: tuple[float, float] | None = None
    """Random resized crop: least and greatest share of the image's area."""
    crop_ratio: tuple[float, float] | None = None
    """Least and greatest width / height of the crop."""
    flip: float | None = Field(None, ge=0, le=1)
    """Probability of a horizontal flip."""
    color_jitter: float | None = Field(None, ge=0)
    """Strength of brightness, contrast and saturation jitter; not with rand_augment, as in timm."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """Of the training crops."""
    eval_resize: int | None = added(None, ge=4)
    """Side in px that the shorter side of a test image is resized to before the central crop."""

    repeats: int = added(1, ge=1)
    """Repeated augmentation (arXiv:1901.09335): how often an epoch shows each of its images, each time augmented
    anew. An epoch is as long as without, so it has 1 / repeats of the images."""

    rand_augment: str | None = Field(None, min_length=1)
    """RandAugment in timm's notation, e.g. "rand-m9-mstd0.5-inc1", or "trivial" for torchvision's TrivialAugmentWide
    (arXiv:2103.10158); images are then augmented one by one."""
    erase_prob: float = Field(0.0, ge=0, le=1)
    """Probability that a rectangle of an image is erased with noise."""
    mixup: float = Field(0.0, ge=0)
    """Alpha of mixup's Beta distribution; 0: none."""
    cutmix: float = Field(0.0, ge=0)
    """Alpha of CutMix's Beta distribution; 0: none."""
    mixup_prob: float = Field(1.0, gt=0, le=1)
    """Share of the groups that are mixed."""
    switch_prob: float = Field(0.5, ge=0, le=1)
    """Share of the mixed groups that get CutMix, if both are on."""
    mix_group: int = Field(128, ge=2, multiple_of=2)
    """Images per group that mixup and CutMix treat in the same way. Each group draws one of the two and its share anew,
    as each GPU of the official runs does for its own batch. A smaller micro-batch is one group."""
    smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing."""
    loss: Literal["cross-entropy", "binary"] = added("cross-entropy")
    """binary: the binary cross-entropy of each class by itself, mean over classes and images."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Of the moving average of the weights, which is then what is scored; absent: none."""
    calibration_bins: int = Field(15, ge=2)

    @model_validator(mode="after")
    def _consistent(self) -> FinetuneConfig:
        if self.pooling == "token" and self.norm != "encoder":
            raise ValueError(
                f'norm "{self.norm}" goes with pooling "mean"; the class token passes the encoder\'s final norm'
            )
        if self.from_scratch and self.trained_blocks is not None:
            raise ValueError("trained_blocks would freeze weights that nothing has trained; leave from_scratch out")
        if self.rand_augment and self.color_jitter:
            raise ValueError("color_jitter is not used with rand_augment; leave one of them out")
        return self

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def input(self, recipe: InputConfig) -> InputConfig:
        """How images are shown: the recipe's [input], with what these options set instead."""
        names = ("image_size", "crop_scale", "crop_ratio", "flip", "color_jitter", "interpolation", "eval_resize")
        replaced: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.rand_augment:
            replaced["color_jitter"] = 0.0
        if {"crop_scale", "crop_ratio"} & replaced.keys():  # of random resized crops, whatever the pretraining has
            replaced["crop"] = "resized"
        return InputConfig(**{**recipe.model_dump(), **replaced})

    @model_validator(mode="after")
    def _ranges(self) -> FinetuneConfig:
        self.input(InputConfig(image_size=4))
        return self
