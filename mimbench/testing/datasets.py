"""The checks of a dataset.

    for result in check_dataset(MyDataset, {"root": "..."}):
        print(result.name, result.status, result.message)

As tests, one per check: `@parametrize_checks(dataset_suite(MyDataset))`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimbench.contract import Config, Dataset
from mimbench.testing.checks import Failure, Result, Skip, Suite, check
from mimbench.testing.dataset_content import CONTENT_CHECKS
from mimbench.testing.dataset_subject import DatasetSubject, spaced
from mimbench.testing.form import FORM_CHECKS, make_config, make_suite
from mimbench.text import print_text


@check("split", needs=["splits_open"])
def reading_is_deterministic(subject: DatasetSubject) -> None:
    """Images and labels are equal when they are read again, and from a new instance."""
    other = subject.open()
    for name, first in subject.splits().items():
        second = other.split(name)
        for index in spaced(len(first)):
            one = subject.read(first, index)
            if one != subject.read(first, index):
                raise Failure(f"image {index} of {name} differs when it is read again; draw from a fixed seed, once")
            if index >= len(second) or one != subject.read(second, index):
                raise Failure(f"image {index} of {name} differs in a new instance; draw and list in a fixed order")


@check("fingerprint", needs=["metadata_is_complete", "splits_open"])
def fingerprint_is_stable(subject: DatasetSubject) -> None:
    """The fingerprint is a string, equal in each call and in a new instance."""
    fingerprints = [subject.dataset.fingerprint() for _ in range(2)] + [subject.open().fingerprint()]
    if not all(isinstance(one, str) and one for one in fingerprints):
        raise Failure(f"fingerprint returns {fingerprints[0]!r}; return the hex digest of the content")
    if len(set(fingerprints)) > 1:
        raise Failure("fingerprint differs from call to call; compute it from the content alone")


@check("fingerprint", needs=["fingerprint_is_stable"])
def fingerprint_is_equal_in_other_processes(subject: DatasetSubject) -> None:
    """The fingerprint is the same in a new process, with another hash seed."""
    plugin = subject.plugin
    if "<locals>" in plugin.__qualname__ or plugin.__module__ == "__main__":
        raise Skip(f"a new process cannot import {plugin.__qualname__}; define it at the top of a module")
    config = subject.make_config()
    options = json.dumps(config.model_dump(mode="json", exclude_unset=True))
    arguments = (plugin.__module__, plugin.__qualname__, options, str(subject.cache))
    code = f"from {__name__} import print_fingerprint; print_fingerprint(*{arguments!r})"
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failure(f"a new process cannot open the dataset: {last}; open it without anything set up before")
    if done.stdout.strip() != subject.dataset.fingerprint():
        raise Failure("fingerprint differs from process to process; use hashlib, and neither hash() nor sets")


def print_fingerprint(module: str, name: str, options: str, cache: str) -> None:
    """Print the fingerprint of a dataset, for a check in another process.

    Args:
        module: of the class.
        name: qualified name of the class in the module.
        options: JSON of its options.
        cache: folder for derived files.
    """
    import importlib
    from operator import attrgetter

    dataset: type[Dataset] = attrgetter(name)(importlib.import_module(module))
    config: Any = make_config(dataset, json.loads(options), "data")
    print_text(dataset(config, Path(cache)).fingerprint())


DATASET_CHECKS = (
    *FORM_CHECKS,
    *CONTENT_CHECKS,
    reading_is_deterministic,
    fingerprint_is_stable,
    fingerprint_is_equal_in_other_processes,
)


def dataset_suite(
    dataset: type[Dataset], options: Mapping[str, Any] | Config | None = None, *, cache: Path | None = None
) -> Suite:
    """The checks of a dataset, none of which has run. They read some images of each split.

    Args:
        dataset: the class.
        options: options of its Config that differ from the defaults.
        cache: folder for files that the dataset derives. Default: the usual cache.

    Raises:
        InputError: the options are not valid, or `waivers` of the class names no check.
    """
    return make_suite(DatasetSubject(dataset, options, cache), DATASET_CHECKS)


def check_dataset(
    dataset: type[Dataset], options: Mapping[str, Any] | Config | None = None, **setting: Any
) -> list[Result]:
    """Run every check of a dataset. The arguments are those of `dataset_suite`."""
    return dataset_suite(dataset, options, **setting).run()
