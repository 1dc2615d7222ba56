"""How many images and classes a dataset has, whether or not it is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mimbench import registry
from mimbench.contract import Dataset, DataSizes, PretrainConfig
from mimbench.contract.validation import validate
from mimbench.data import default_cache, open_dataset
from mimbench.errors import InputError


@dataclass(frozen=True)
class AbsentData:
    """Numbers that the command line gives of a dataset that is absent."""

    images: int | None = None
    """Training images."""
    classes: int | None = None
    channels: int = 3


def sizes_of(name: str, options: Mapping[str, Any], where: str, absent: AbsentData) -> DataSizes:
    """Numbers of a dataset: as given, as published, or as the files on this machine have them.

    Published numbers are used only if the options name no folder.

    Raises:
        InputError: the dataset is absent and its numbers are not known; the message says how to give them.
    """
    cls: type[Dataset] = registry.datasets.load(name)
    config = validate(cls.Config, dict(options), where)
    sizes = None if config.root else cls.published_sizes(config)
    if sizes is not None and config.validation_share:
        held = round(sizes.train * config.validation_share)
        sizes = replace(sizes, train=sizes.train - held, test=held)
    if sizes is None and absent.images is None:
        sizes = _counted(name, options, where)
    if sizes is None:
        sizes = DataSizes(absent.images or 0, 0, absent.classes or 1, absent.channels, "the command line")
    return replace(sizes, train=absent.images or sizes.train, classes=absent.classes or sizes.classes)


def pretraining_images(sizes: DataSizes, config: PretrainConfig) -> int:
    """Images of one epoch: the share that the recipe takes, and planted ones in their copies."""
    others = sizes.train - config.plant_count
    return round(others * config.data_share) + config.plant_count * config.plant_copies


def _counted(name: str, options: Mapping[str, Any], where: str) -> DataSizes:
    try:
        dataset = open_dataset(name, options, default_cache(), where)
        train, test = dataset.split("train"), dataset.split("test")
    except (InputError, OSError) as error:
        raise InputError(f"{error}; or plan without it: give --images N (of an epoch) and --classes N") from error
    return DataSizes(len(train), len(test), len(train.classes), dataset.channels, f"the files of {name}")
