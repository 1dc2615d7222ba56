"""Options of the segmentation task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from mimbench.api import Encoder, InputError, TaskConfig, TrainConfig, adapt_encoder, cosmetic, nearest

HEADS = ("simple-pyramid", "upernet")


class SegmentationConfig(TaskConfig):
    """Values come from a protocol; lengths in px of the image that the encoder sees."""

    head: str = "simple-pyramid"
    """simple-pyramid: convolutions on each map, added up at the finest (arXiv:1901.02446, without its FPN).
    upernet: pooling pyramid on the coarsest map, FPN, all fused (arXiv:1807.10221)."""
    train: TrainConfig
    drop_path: float | None = Field(None, ge=0, lt=1)
    """Of the encoder in this training; absent: as it was pretrained."""
    position: Literal["relative-per-block", "learned", "learned-and-relative"] | None = None
    """A ViT's positions in this training, resampled once to `crop_size`; absent: as pretrained, resampled for each
    batch. relative-per-block: the shared table, copied to every block (BEiT). learned: absolute positions, trained.
    learned-and-relative: a table for each block besides, zero at first (MAE, as mmsegmentation trains it)."""
    layer_scale: float | None = Field(None, gt=0)
    """Initial value of the LayerScale of a ViT that was pretrained without one; absent: none."""
    image_size: int | None = Field(None, ge=8)
    """Shorter side that every image is resized to, its longer side at most four times that; absent: as it is."""
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Least and greatest factor on `image_size`, drawn for each training image."""
    crop_size: int | None = Field(None, ge=8)
    """Side of the square cut out of each training image (and of the window at evaluation, see `slide`)."""
    most_of_crop: float = Field(1.0, gt=0, le=1)
    """A crop in which one class takes more than this share is drawn anew, up to ten times."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip of a training image."""
    photometric: bool = False
    """Random brightness, contrast, saturation and hue, as in SSD; RGB only."""
    slide: int | None = Field(None, ge=1)
    """Step of a sliding window of `crop_size` at evaluation; absent: the whole image at once."""
    window: int = Field(0, ge=0)
    """A plain ViT attends within windows of this many tokens a side; 0: over the whole image. Encoders with several
    maps keep the attention that they have."""
    global_blocks: tuple[int, ...] = ()
    """Blocks that attend over the whole image all the same."""
    layers: tuple[int, ...] = ()
    """Layers of a plain ViT whose maps make up the pyramid, finest first, as many as `strides`; the last one is the
    encoder's last. Absent: its last map makes up every level."""
    strides: tuple[int, ...] = ()
    """Of the pyramid, px, rising. Absent: the encoder's own where it has several maps; for a plain ViT of stride s,
    s/4, s/2, s and 2s where s is 16 and more, and s/2, s and 2s below that."""
    channels: int = Field(64, ge=8)
    """Of the head's convolutions."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of whole channels, before the classifier."""
    background_weight: float = Field(1.0, gt=0)
    """Of pixels of the class "background" in the loss, where a dataset has it."""
    auxiliary: float = Field(0.0, ge=0)
    """Weight of the loss of a second, convolutional head on the third map (the last of fewer); 0: there is none."""
    auxiliary_channels: int = Field(256, ge=8)
    pictures: int = cosmetic(6, ge=1)
    """Test images in the picture of predictions."""

    def adapt(self, encoder: Encoder) -> Encoder:
        """`encoder`, or a copy, as it is fine-tuned here. Raises InputError where it has no place for an option."""
        return adapt_encoder(
            encoder,
            drop_path=self.drop_path,
            window=self.window,
            global_blocks=self.global_blocks,
            grad_checkpointing=self.train.grad_checkpointing,
            image_size=self.crop_size if self.position else None,
            position=self.position,
            layer_scale=self.layer_scale,
        )

    @field_validator("head")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in HEADS:
            raise InputError(f"unknown head {name!r}{nearest(name, HEADS)}")
        return name

    @field_validator("scale_jitter")
    @classmethod
    def _rising(cls, jitter: tuple[float, float]) -> tuple[float, float]:
        if not 0 < jitter[0] <= jitter[1]:
            raise ValueError(f"scale_jitter must be two rising factors above 0, not {jitter}")
        return jitter

    @model_validator(mode="after")
    def _sized(self) -> SegmentationConfig:
        if self.scale_jitter != (1.0, 1.0) and self.image_size is None:
            raise ValueError("scale_jitter needs an image_size to jitter around")
        if self.slide is not None and self.crop_size is None:
            raise ValueError("slide needs a crop_size, the side of its window")
        if self.slide is not None and self.crop_size is not None and self.slide > self.crop_size:
            raise ValueError(f"slide {self.slide} leaves gaps between windows of {self.crop_size} px")
        if self.most_of_crop < 1 and self.crop_size is None:
            raise ValueError("most_of_crop needs a crop_size")
        if self.position and not (self.crop_size and self.slide):
            raise ValueError("position is for images of one size: it needs crop_size and slide")
        if self.layers and self.window:
            raise ValueError("layers are taken from global attention; leave window at 0, or layers out")
        return self


def pyramid_strides(config: SegmentationConfig, encoder: Encoder) -> tuple[int, ...]:
    """Strides of the maps that the head sees, px, finest first.

    Raises:
        InputError: this encoder's maps cannot be brought to them, or it has no such layers.
    """
    encoder_strides, strides = encoder.pyramid_strides, config.strides
    if len(encoder_strides) > 1:
        if strides and strides != encoder_strides:
            raise InputError(f"task.strides {list(strides)} are not those of this encoder's maps; leave strides out")
        if config.layers:
            raise InputError("task.layers is for encoders with one map, such as vit; leave it out")
        return encoder_strides
    stride = encoder_strides[0]
    if not strides:
        finest, levels = (stride // 4, 4) if stride >= 16 else (max(1, stride // 2), 3)
        strides = tuple(finest * 2**level for level in range(levels))
    bad = [each for each in strides if not _powers_apart(each, stride)]
    if bad or list(strides) != sorted(set(strides)):
        raise InputError(
            f"task.strides {list(strides)} must rise, each a power of two times or parts of the encoder's, {stride} px"
        )
    if config.layers:
        _check_layers(config.layers, strides, encoder)
    return strides


def _powers_apart(a: int, b: int) -> bool:
    """Whether one is the other times a power of two."""
    ratio, rest = divmod(max(a, b), min(a, b))
    return rest == 0 and ratio & (ratio - 1) == 0


def _check_layers(layers: tuple[int, ...], strides: tuple[int, ...], encoder: Encoder) -> None:
    if len(layers) != len(strides):
        raise InputError(
            f"task.layers names {len(layers)} layers and the pyramid has {len(strides)} strides, {list(strides)} px"
        )
    if encoder.layer_index(layers[-1]) != encoder.num_layers - 1:
        raise InputError(
            f"task.layers {list(layers)} must end with the encoder's last layer, {encoder.num_layers - 1}: "
            "what comes after would never be trained"
        )
    for layer in layers:
        encoder.layer_index(layer)
