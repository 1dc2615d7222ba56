"""Checks that plugins of every kind have in common: what a class declares, and its options."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from mimbench.contract import Config
from mimbench.contract.check import find_problem
from mimbench.contract.config import parts_of
from mimbench.contract.validation import validate
from mimbench.errors import InputError
from mimbench.testing.checks import Check, Failure, Suite, check

UNKNOWN = "an_option_that_no_plugin_has"


class Configured(Protocol):
    """A subject whose plugin has options."""

    kind: str
    plugin: type[Any]

    def make_config(self) -> Config:
        """The options of this check, validated anew."""


def make_config(plugin: type[Any], options: Any, where: str) -> Any:
    """`options`, a Config or a table of options, as a new Config of the plugin."""
    values = options.model_dump(exclude_unset=True) if isinstance(options, Config) else dict(options or {})
    return validate(plugin.Config, values, where)


def make_suite(subject: Configured, checks: Iterable[Check]) -> Suite:
    """The checks of a subject.

    Raises:
        InputError: its options are not valid, or `waivers` of its class names no check.
    """
    if _problem(subject) is None:  # a class with a problem fails its first check instead
        subject.make_config()
    return Suite(subject, checks)


def _problem(subject: Configured) -> str | None:
    name = getattr(subject.plugin, "name", None) or subject.plugin.__name__
    return find_problem(subject.kind, name, subject.plugin)


@check()
def metadata_is_complete(subject: Configured) -> None:
    """The class declares what its kind of plugin needs, as `mimbench list --check` requires it."""
    problem = _problem(subject)
    if problem:
        raise Failure(problem)


@check("Config", needs=["metadata_is_complete"])
def options_are_plain(subject: Configured) -> None:
    """Options have a stable written form, and unknown ones are refused."""
    one, other = subject.make_config(), subject.make_config()
    try:
        texts = [json.dumps(config.shaping(), allow_nan=False) for config in (one, other)]
    except (TypeError, ValueError) as error:
        raise Failure(
            f"Config.shaping returns what JSON cannot hold: {error}; return numbers, strings, lists"
        ) from error
    if texts[0] != texts[1]:
        raise Failure("equal options give different values of Config.shaping; compute it from the options alone")
    if subject.make_config() != one:
        raise Failure("equal options give configs that are not equal; leave __eq__ as it is")
    try:
        make_config(subject.plugin, {**one.model_dump(exclude_unset=True), UNKNOWN: 1}, subject.kind)
    except InputError as error:
        if UNKNOWN in str(error):
            return
    raise Failure('Config accepts unknown options; leave extra="forbid" in model_config')


@check("Config", needs=["options_are_plain"])
def files_count_by_content(subject: Configured) -> None:
    """An option that is a path enters the fingerprint by the content of its file, not by its name."""
    config = subject.make_config()
    paths = [
        name
        for name, field in type(config).model_fields.items()
        if Path in parts_of(field.annotation) and not config.is_cosmetic(name)
    ]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("a", "b", "c")]
        for file, content in zip(files, ("one", "one", "two"), strict=True):
            file.write_text(content)
        for name in paths:
            first, equal, different = (
                json.dumps(config.model_copy(update={name: file}).shaping(), sort_keys=True) for file in files
            )
            if first != equal or first == different:
                raise Failure(
                    f"option {name!r} enters the fingerprint by the name of its file; leave it to Config.shaping, "
                    "which hashes the content, or declare it with `cosmetic`"
                )


FORM_CHECKS = (metadata_is_complete, options_are_plain, files_count_by_content)
