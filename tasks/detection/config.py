"""Options of the detection task."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from mimbench.contract import InputError, ScheduleConfig, TaskConfig, TrainConfig, cosmetic
from mimbench.errors import nearest

NAMES = ("fcos", "retinanet", "faster-rcnn", "mask-rcnn")


class DetectionTrain(TrainConfig):
    """The budget that suits the embedded scenes."""

    epochs: int = Field(5, ge=1)
    batch_size: int = Field(4, ge=1)
    base_lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    clip_grad: float | None = Field(5.0, gt=0)
    checkpoint_every: int = cosmetic(1, ge=1)
    schedule: ScheduleConfig = ScheduleConfig(warmup_epochs=0.5)


class DetectionConfig(TaskConfig):
    """Defaults suit scenes of about 100 px; lengths in px of the image that the encoder sees."""

    detector: str = "fcos"
    """fcos, retinanet, faster-rcnn or mask-rcnn."""
    train: DetectionTrain = DetectionTrain()
    image_size: int | None = Field(None, ge=8)
    """Longer side that every scene is resized to; absent: as it is on disk."""
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Least and greatest factor on `image_size`, drawn for each training scene, then cropped to `image_size`."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip of a training scene."""
    window: int = Field(8, ge=0)
    """A plain ViT attends within windows of this many tokens a side; 0: over the whole scene. Encoders with several
    maps keep the attention that they have."""
    global_blocks: tuple[int, ...] = ()
    """Blocks that attend over the whole scene all the same."""
    strides: tuple[int, ...] = ()
    """Of the pyramid, px. Absent: the encoder's own where it has several maps; for a plain ViT of patch 16 and more
    ViTDet's s/4, s/2, s, 2s, and of smaller patches, which small images need, s and 2s."""
    channels: int = Field(64, ge=8)
    """Of the pyramid and of the heads' convolutions."""
    convs: int = Field(2, ge=1)
    """Convolutions of a head before its prediction."""
    anchor_scale: float = Field(2.0, gt=0)
    """Side of the anchors, and half the reach of an FCOS level, in strides."""
    proposals: int = Field(100, ge=1)
    """Of the first stage, a scene, for the second."""
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
        return self.detector == "mask-rcnn"

    def pyramid(self, own: tuple[int, ...]) -> tuple[int, ...]:
        """`strides`, with what absent ones mean for an encoder whose maps have the strides `own`."""
        if self.strides or len(own) > 1:
            return self.strides or own
        stride = own[0]
        return (stride // 4, stride // 2, stride, 2 * stride) if stride >= 16 else (stride, 2 * stride)

    @field_validator("detector")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NAMES:
            raise InputError(f"unknown detector {name!r}{nearest(name, NAMES)}")
        return name

    @model_validator(mode="after")
    def _sized(self) -> DetectionConfig:
        if self.scale_jitter != (1.0, 1.0) and self.image_size is None:
            raise ValueError("scale_jitter needs an image_size to jitter around")
        return self

    @field_validator("scale_jitter")
    @classmethod
    def _rising(cls, jitter: tuple[float, float]) -> tuple[float, float]:
        if not 0 < jitter[0] <= jitter[1]:
            raise ValueError(f"scale_jitter must be two rising factors above 0, not {jitter}")
        return jitter
