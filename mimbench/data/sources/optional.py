"""Packages that only some datasets need."""

from __future__ import annotations

import importlib
from types import ModuleType

from mimbench.errors import InputError


def require_package(package: str, extra: str, dataset: str) -> ModuleType:
    """The imported package.

    Args:
        extra: of mimbench's optional dependencies, which installs it.
        dataset: name of the dataset that needs it.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == package.partition(".")[0]
        problem = "is not installed" if is_missing else f"cannot be imported ({error})"
        raise InputError(
            f"data.name={dataset} needs the package {package.partition('.')[0]}, which {problem}: "
            f"pip install 'mimbench[{extra}]'"
        ) from error
