"""Datasets, their loaders, and the way from uint8 pixels to what an encoder sees."""

from mimbench.data.cache import default_cache
from mimbench.data.coco import coco_split
from mimbench.data.loading import evaluation_loader, place, training_loader
from mimbench.data.open import open_dataset
from mimbench.data.transforms import DeviceTransform, denormalise

__all__ = [
    "DeviceTransform",
    "coco_split",
    "default_cache",
    "denormalise",
    "evaluation_loader",
    "open_dataset",
    "place",
    "training_loader",
]
