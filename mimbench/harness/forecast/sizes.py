"""How many images and classes a dataset has, whether or not it is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mimbench import registry
from mimbench.contract import Dataset, DataSizes, DepthSplit, PretrainConfig, SceneSplit
from mimbench.contract.validation import validate
from mimbench.data import default_cache, open_dataset
from mimbench.errors import InputError

_CHANNELS = 3
"""Of an absent dataset whose options do not say."""
_COMMAND_LINE = "the command line"


@dataclass(frozen=True)
class AbsentData:
    """Numbers that the command line gives of a dataset that is absent."""

    images: int | None = None
    """Training images."""
    classes: int | None = None

    def require_use(self, data: Mapping[str, DataSizes]) -> None:
        """Raise InputError if numbers are given and no dataset of `data`, by name, needs them."""
        if (self.images or self.classes) and all(sizes.source != _COMMAND_LINE for sizes in data.values()):
            raise InputError(
                f"--images and --classes are of a dataset that is absent; those of {', '.join(data)} are known: "
                "leave them out"
            )


def sizes_of(name: str, options: Mapping[str, Any], where: str, absent: AbsentData) -> DataSizes:
    """Numbers of a dataset: as published, as the files on this machine have them, or as given if it is absent.

    Published numbers are used only if the options name no folder.

    Raises:
        InputError: the dataset is absent and its numbers are not known; the message says how to give them.
    """
    cls: type[Dataset] = registry.datasets.load(name)
    config = validate(cls.Config, dict(options), where)
    sizes = None if config.root else cls.published_sizes(config)
    if sizes is not None:
        held = round(sizes.train * config.validation_share)
        return replace(sizes, train=sizes.train - held, test=held) if held else sizes
    try:
        return count_images(open_dataset(name, options, default_cache(), where))
    except (InputError, OSError) as error:
        if absent.images is None:
            raise InputError(f"{error}; or plan without it: give --images N (of an epoch) and --classes N") from error
    channels = getattr(config, "channels", _CHANNELS)
    return DataSizes(absent.images, 0, absent.classes or 1, channels, _COMMAND_LINE)


def count_images(dataset: Dataset) -> DataSizes:
    """Numbers of a dataset that is on this machine."""
    train, test = dataset.split("train"), dataset.split("test")
    published = registry.datasets.load(dataset.name).published_sizes(dataset.config.model_copy(update={"root": None}))
    return DataSizes(
        len(train),
        len(test),
        1 if isinstance(train, DepthSplit) else len(train.classes),
        dataset.channels,
        f"the files of {dataset.name}",
        side=published.side if published else None,
        has_objects=isinstance(train, SceneSplit),
    )


def pretraining_images(sizes: DataSizes, config: PretrainConfig) -> int:
    """Images of one epoch: the share that the recipe takes, and planted ones in their copies."""
    others = sizes.train - config.plant_count
    return round(others * config.data_share) + config.plant_count * config.plant_copies
