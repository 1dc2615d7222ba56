"""Options of the detection task: of the embedded scenes and of COCO's protocols alike."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import lcm
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mimbench.api import Encoder, InputError, ScheduleConfig, TaskConfig, TrainConfig, added, cosmetic, nearest

NAMES = ("fcos", "retinanet", "faster-rcnn", "mask-rcnn", "cascade-mask-rcnn")
Norm = Literal["LN", "GN", "BN", "SyncBN"]
"""LN: LayerNorm over the channels of each cell."""
POSITIONS = ("pos_embed", "relative_position_bias_table")
"""What protocols name in `undecayed` for encoders of every kind, of which each has one or none."""


class DetectionTrain(TrainConfig):
    """The budget of the fine-tuning; protocols set it."""

    epochs: int | None = Field(5, ge=1)
    batch_size: int = Field(4, ge=1)
    base_lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    checkpoint_every: int | None = cosmetic(1, ge=1)
    schedule: ScheduleConfig = ScheduleConfig(warmup_epochs=0.5)
    undecayed: tuple[str, ...] = ()
    """Names or patterns of the encoder's parameters that are not decayed, besides what never is: norms, biases, and
    what the encoder itself names. Only position tables may be named where there are none."""


class DetectionConfig(TaskConfig):
    """Lengths in px of the image that the encoder sees."""

    detector: str = "fcos"
    """fcos, retinanet, faster-rcnn, mask-rcnn or cascade-mask-rcnn."""
    train: DetectionTrain = DetectionTrain()

    image_size: int | None = Field(None, ge=8)
    """Longer side that every scene is resized to, or may have beside `shorter_side`; absent: as it is on disk."""
    shorter_side: tuple[int, ...] = ()
    """Sides that the shorter one is resized to, drawn for each training scene; test scenes get the last."""
    precrop_side: tuple[int, ...] = ()
    """DETR's augmentation: half of the training scenes first get one of these shorter sides and are cropped ..."""
    precrop: tuple[int, int] = (384, 600)
    """... to sides drawn between these two."""
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Least and greatest factor on `image_size`, drawn for each training scene, then cropped to `image_size`."""
    recompute_boxes: bool = False
    """After that crop, boxes are those of what is left of the masks."""
    square: bool = False
    """Pad every batch to image_size x image_size; else as far as its largest scene and the strides need."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip of a training scene."""
    keep_empty: bool = False
    """Train on scenes without objects too."""
    least_side: int = Field(0, ge=0)
    """Training scenes with a shorter side below this, on disk, are left out."""

    drop_path: float | None = Field(None, ge=0, lt=1)
    """Of the encoder while it is fine-tuned; absent: as it was pretrained."""
    window: int = Field(8, ge=0)
    """A plain ViT attends within windows of this many tokens a side; 0: over the whole scene. Encoders with several
    maps keep the attention that they have."""
    global_blocks: tuple[int, ...] = ()
    """Blocks that attend over the whole scene all the same."""
    relative_positions: bool = False
    """A plain ViT with absolute positions learns relative ones beside them, zero at first, for scenes of
    `image_size`."""
    train_positions: bool = added(False)
    """Fixed absolute positions (sin-cos) of a plain ViT are trained too."""

    strides: tuple[int, ...] = ()
    """Of the pyramid, px. Absent: the encoder's own where it has several maps; for a plain ViT of patch 16 and more
    ViTDet's s/4, s/2, s, 2s, and of smaller patches, which small images need, s and 2s."""
    extra_levels: int = Field(0, ge=0)
    """Coarser levels after those, for proposals: each has every second cell of the one before."""
    map_norms: bool = False
    """A learned LayerNorm on each of the encoder's maps, as Swin's detectors have."""
    channels: int = Field(64, ge=8)
    """Of the pyramid and of the heads' convolutions."""

    convs: int = Field(2, ge=1)
    """Convolutions of a dense head, or of the mask head, before its prediction."""
    mask_norm: Norm | None = None
    rpn_convs: int = Field(1, ge=1)
    box_convs: int = Field(0, ge=0)
    """Convolutions of the second stage's box head, before ..."""
    box_fcs: int = Field(2, ge=1)
    """... its fully connected layers of 4 x `channels`."""
    box_norm: Norm | None = None
    """After each of its convolutions."""
    class_agnostic: bool = False
    """The second stage regresses one box per RoI, not one per class."""
    low_quality_matches: bool = added(True)
    """In training mask-rcnn, an object also takes the RoI that overlaps it most from another object, as in mmdet."""
    cascade: Literal["mmdet", "detectron2"] = added("mmdet")
    """How the stages of cascade-mask-rcnn are joined. mmdet: losses weigh 1, 1/2 and 1/4, and each stage samples its
    RoIs and has a mask head. detectron2: losses weigh 1, each gradient is divided by 3 before the features, RoIs are
    sampled once, and there is one mask head, for the last boxes; it needs class_agnostic."""
    anchor_scale: float = Field(2.0, gt=0)
    """Side of the smallest anchors, and half the reach of an FCOS level, in strides."""
    anchors: int = Field(2, ge=1)
    """Sizes of anchors that a level of the RPN has within an octave."""
    proposals: int = Field(100, ge=1)
    """Of the first stage, a scene, for the second."""
    candidates: tuple[int, int] | None = None
    """Proposals of a level that enter its NMS, in training and in testing; absent: 2 x `proposals`."""
    roi_samples: int = Field(32, ge=1)
    """RoIs of a scene that the second stage learns from."""
    score_threshold: float = Field(0.05, ge=0, lt=1)
    nms_threshold: float = Field(0.5, gt=0, lt=1)
    max_detections: int = Field(100, ge=1)
    """Of one scene; COCO counts no more than 100."""
    pictures: int = cosmetic(4, ge=1)
    """Test scenes in the picture of predictions."""

    @property
    def draws_masks(self) -> bool:
        return self.detector.endswith("mask-rcnn")

    @property
    def positions_side(self) -> int | None:
        """Side of the scenes that relative positions are learned for, px; None: none are."""
        return self.image_size if self.relative_positions else None

    def pyramid(self, encoder_strides: tuple[int, ...]) -> tuple[int, ...]:
        """`strides`, with what absent ones mean for an encoder whose maps have the strides `encoder_strides`."""
        if self.strides or len(encoder_strides) > 1:
            return self.strides or encoder_strides
        stride = encoder_strides[0]
        return (stride // 4, stride // 2, stride, 2 * stride) if stride >= 16 else (stride, 2 * stride)

    def levels(self, encoder: Encoder) -> tuple[int, ...]:
        """Strides of all levels that heads look at, finest first.

        Raises:
            InputError: the encoder's maps cannot be brought to them.
        """
        encoder_strides = encoder.pyramid_strides
        strides = self.pyramid(encoder_strides)
        if len(encoder_strides) == 1:
            if not all(_reachable(encoder_strides[0], stride) for stride in strides):
                raise InputError(
                    f"strides {strides} px are neither multiples of the encoder's, {encoder_strides[0]} px, "
                    "nor halves of it, quarters and so on; change task.strides"
                )
        else:
            extra = tuple(encoder_strides[-1] * 2**step for step in range(1, len(strides) - len(encoder_strides) + 1))
            if strides != encoder_strides + extra:
                raise InputError(
                    f"strides {strides} px do not begin with the encoder's, {encoder_strides} px, doubling after that; "
                    "leave task.strides out"
                )
        return strides + tuple(strides[-1] * 2**step for step in range(1, self.extra_levels + 1))

    def padding(self, encoder: Encoder) -> int:
        """What both sides of a batch are multiples of, px.

        Raises:
            InputError: a square of `image_size` is not.
        """
        divisor = lcm(encoder.patch_size, *encoder.pyramid_strides, *self.pyramid(encoder.pyramid_strides))
        if not self.square or self.image_size is None:
            return divisor
        if self.image_size % divisor:
            raise InputError(f"task.square: image_size {self.image_size} px is not a multiple of {divisor} px")
        return self.image_size

    @field_validator("detector")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NAMES:
            raise InputError(f"unknown detector {name!r}{nearest(name, NAMES)}")
        return name

    @field_validator("scale_jitter", "precrop")
    @classmethod
    def _rising(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if not 0 < bounds[0] <= bounds[1]:
            raise ValueError(f"these must be two rising numbers above 0, not {bounds}")
        return bounds

    @field_validator("strides", "shorter_side", "precrop_side")
    @classmethod
    def _strictly_rising(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if list(sizes) != sorted(set(sizes)) or (sizes and sizes[0] < 1):
            raise ValueError(f"these must rise, from 1 px, not {sizes}")
        return sizes

    @model_validator(mode="after")
    def _sized(self) -> DetectionConfig:
        needs_size = {
            "scale_jitter": self.scale_jitter != (1.0, 1.0),
            "shorter_side": bool(self.shorter_side),
            "square": self.square,
            "relative_positions": self.relative_positions,
        }
        for name, used in needs_size.items():
            if used and self.image_size is None:
                raise ValueError(f"{name} needs an image_size")
        if self.shorter_side and self.scale_jitter != (1.0, 1.0):
            raise ValueError("scale_jitter and shorter_side both say how large a training scene is; leave one out")
        if self.precrop_side and not self.shorter_side:
            raise ValueError("precrop_side needs shorter_side, which scenes are brought to after the crop")
        if self.shorter_side and self.image_size is not None and self.image_size < self.shorter_side[-1]:
            raise ValueError(f"shorter_side {self.shorter_side[-1]} is above image_size {self.image_size}, the longer")
        if self.cascade == "detectron2" and not (self.detector == "cascade-mask-rcnn" and self.class_agnostic):
            raise ValueError('cascade "detectron2" is for detector "cascade-mask-rcnn" with class_agnostic = true')
        if self.detector == "fcos" and self.train.parallel == "fsdp":
            raise ValueError('detector "fcos" has weights without a dimension, which parallel "fsdp" cannot split')
        if self.recompute_boxes and not self.draws_masks:
            raise ValueError(f"recompute_boxes needs masks, which {self.detector} does not read")
        return self


def undecayed_names(encoder: Encoder, patterns: Sequence[str]) -> set[str]:
    """The encoder's parameters that `patterns` match, wholly or in the part after any dot.

    Raises:
        InputError: one matches none, and is no name of position tables either.
    """
    names = [name for name, _ in encoder.named_parameters()]
    undecayed: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(f".{name}", f"*.{pattern}")}
        if not matched and pattern not in POSITIONS:
            known = {name.rpartition(".")[2] for name in names}
            raise InputError(
                f"task.train.undecayed: {pattern!r} matches no parameter of the encoder{nearest(pattern, known)}"
            )
        undecayed |= matched
    return undecayed


def _reachable(encoder_stride: int, stride: int) -> bool:
    """Whether 2 x 2 upsampling, or one max pooling, leads from the one stride to the other."""
    return stride % encoder_stride == 0 or (
        encoder_stride % stride == 0 and (encoder_stride // stride).bit_count() == 1
    )
