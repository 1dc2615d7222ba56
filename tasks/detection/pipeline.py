"""What happens to a scene before the detector sees it, as mmdet transforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mimbench.api import InputError, read_sized
from mimbench_tasks.detection.config import DetectionConfig

Step = dict[str, Any]


@TRANSFORMS.register_module()
class LoadScene(BaseTransform):
    """Any image file as uint8 pixels in grey (`channels` 1) or RGB (3), as mimbench reads them everywhere.

    Width and height of the annotation file say whether boxes refer to the pixels as stored, or as EXIF turns them.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises InputError for a file that cannot be read, or has another size than its annotations."""
        path = Path(results["img_path"])
        try:
            pixels = read_sized(path, self.channels, (results["width"], results["height"]))
        except InputError:
            raise
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            raise InputError(f"cannot read the scene {path}: {error}") from error
        shape = pixels.shape[:2]
        return {**results, "img": pixels, "img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}


def training_pipeline(config: DetectionConfig, channels: int) -> list[Step]:
    """From a record of the annotation file to a training sample; `channels` is what the encoder takes, 1 or 3."""
    annotate = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": config.draws_masks}
    flip = [{"type": "RandomFlip", "prob": config.flip}] if config.flip else []
    return [_load(channels), annotate, *_training_size(config), *flip, _pack()]


def test_pipeline(config: DetectionConfig, channels: int) -> list[Step]:
    """The same for a whole test scene; no annotation is read."""
    return [_load(channels), *_resize(config), _pack()]


def _load(channels: int) -> Step:
    return {"type": "LoadScene", "channels": channels}


def _pack() -> Step:
    return {"type": "PackDetInputs"}


def _resize(config: DetectionConfig) -> list[Step]:
    """Whole, with its proportions: the shorter side to the last of `shorter_side`, or the longer to `image_size`."""
    if config.image_size is None:
        return []
    side = config.shorter_side[-1] if config.shorter_side else config.image_size
    return [{"type": "Resize", "scale": (config.image_size, side), "keep_ratio": True}]


def _training_size(config: DetectionConfig) -> list[Step]:
    if config.image_size is not None and config.scale_jitter != (1.0, 1.0):
        return _jitter(config.image_size, config)
    if config.image_size is not None and (len(config.shorter_side) > 1 or config.precrop_side):
        return _multi_scale(config.image_size, config)
    return _resize(config)


def _jitter(side: int, config: DetectionConfig) -> list[Step]:
    """Large scale jitter (arXiv:2012.07177)."""
    return [
        {
            "type": "RandomResize",
            "resize_type": "mmdet.Resize",
            "scale": (side, side),
            "ratio_range": config.scale_jitter,
            "keep_ratio": True,
        },
        {
            "type": "RandomCrop",
            "crop_size": (side, side),
            "recompute_bbox": config.recompute_boxes,
            "allow_negative_crop": True,
        },
        # keep_empty=False keeps the scene: mmdet's name says what becomes of an empty one's annotations.
        {"type": "FilterAnnotations", "min_gt_bbox_wh": (1e-2, 1e-2), "keep_empty": False},
    ]


def _multi_scale(longest: int, config: DetectionConfig) -> list[Step]:
    """One of several sizes; half of the scenes are cropped before (DETR, arXiv:2005.12872)."""
    resize = _choose_side(config.shorter_side, longest)
    if not config.precrop_side:
        return [resize]
    crop = {
        "type": "RandomCrop",
        "crop_type": "absolute_range",
        "crop_size": config.precrop,
        "allow_negative_crop": True,
    }
    return [
        {
            "type": "RandomChoice",
            "transforms": [[resize], [_choose_side(config.precrop_side, longest), crop, resize]],
        }
    ]


def _choose_side(short_sides: tuple[int, ...], longest: int) -> Step:
    return {
        "type": "RandomChoiceResize",
        "resize_type": "mmdet.Resize",
        "scales": [(longest, side) for side in short_sides],
        "keep_ratio": True,
    }
