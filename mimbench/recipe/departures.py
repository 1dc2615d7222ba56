"""In what a task departs from the named protocol that it runs under: what makes "mae" not MAE's protocol any more."""

from __future__ import annotations

from typing import Any

from mimbench.contract import Task
from mimbench.errors import InputError
from mimbench.recipe import document as doc
from mimbench.recipe.validation import validated


def departures(task: Task) -> dict[str, Any]:
    """Options that differ from the task's named protocol as shipped, by dotted path; {} for a task without one.

    It does not matter who set them: a preset, a recipe file, --set or --vary. What cannot change the score is left out:
    cosmetic options, and those that `Task.protocol` leaves out. Of a protocol that cannot run alone, all is told that
    it does not set itself.
    """
    cls, name = type(task), task.config.protocol
    protocol = cls.protocols.get(name or "")
    if protocol is None:
        return {}
    options = {"protocol": name, **protocol.options}
    try:
        as_shipped = cls(validated(cls.Config, options, f"tasks.{cls.name}"))
    except InputError:
        shipped: dict[str, Any] = {**options, "task": cls.name, "version": cls.version}
    else:
        # An option that the protocol as shipped has no use for counts once it is of use.
        shipped = {**as_shipped.config.shaping(), **as_shipped.protocol()}
    known, own = dict(doc.values(shipped)), dict(doc.values(task.protocol()))
    departed = {path: value for path, value in own.items() if path not in known or known[path] != value}
    # A protocol may set an option that results older than the option do not name where it is at its default.
    return departed | {path: value for path, value in task.config.left_out().items() if path in known.keys() - own}
