"""Datasets by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimbench.contract import Dataset
from mimbench.contract.validation import validate
from mimbench.data.files.cache import default_cache
from mimbench.data.validation import Validation
from mimbench.registry import datasets


def open_dataset(name: str, options: Mapping[str, Any], cache: Path | None = None, where: str = "data") -> Dataset:
    """The dataset called `name` with its own `options`; `where` is the options' path in the recipe.

    Raises:
        InputError: unknown name, key or value; or the data is not there, with what to do.
    """
    cls = datasets.load(name)
    dataset = cls(validate(cls.Config, dict(options), where), cache or default_cache())
    return Validation(dataset, where) if dataset.config.validation_share else dataset
