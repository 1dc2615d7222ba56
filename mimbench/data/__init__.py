"""Datasets, their loaders, and the way from uint8 pixels to what an encoder sees."""

from mimbench.data.files.cache import default_cache
from mimbench.data.open import open_dataset
from mimbench.data.pipeline.device_decoding import decode_on
from mimbench.data.pipeline.encoded import Decoding, EncodedBatch, EncodedSplit, decoding_of
from mimbench.data.pipeline.loading import evaluation_loader, training_loader
from mimbench.data.pipeline.subsets import count_training_images, training_images
from mimbench.data.pipeline.transforms import DeviceTransform, denormalise
from mimbench.data.pipeline.view_schedule import Views, ViewSchedule, views_at
from mimbench.data.sources.coco import coco_split
from mimbench.data.validation import Validation

__all__ = [
    "Decoding",
    "DeviceTransform",
    "EncodedBatch",
    "EncodedSplit",
    "Validation",
    "ViewSchedule",
    "Views",
    "coco_split",
    "count_training_images",
    "decode_on",
    "decoding_of",
    "default_cache",
    "denormalise",
    "evaluation_loader",
    "open_dataset",
    "training_images",
    "training_loader",
    "views_at",
]
