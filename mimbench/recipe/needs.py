"""Refuses an encoder that cannot do what a method or task needs, and names those that can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from mimbench import registry
from mimbench.contract import Encoder, Method, Task, require_abilities
from mimbench.errors import InputError
from mimbench.recipe import DEFAULT_CLIPS, DEFAULT_RECIPE
from mimbench.recipe.document import preset_names, read
from mimbench.text import list_first


def check_method_needs(method: type[Method], encoder: Encoder, name: str) -> None:
    """Raise InputError if a method needs what its encoder cannot do, or takes clips only or images only, not both.

    Args:
        method: the class.
        encoder: may be one without weights.
        name: of the encoder plugin.
    """
    if encoder.frames > 1 and not method.takes_clips:
        owner = registry.methods.owner(method.name)
        raise InputError(
            f"method {method.name!r} ({owner}) takes images and no clips, and input.frames is {encoder.frames}; choose "
            "a method that sets takes_clips"
        )
    if encoder.frames == 1 and not method.takes_images:
        raise InputError(
            f"method {method.name!r} ({registry.methods.owner(method.name)}) takes clips and no images, and "
            f"input.frames is 1; choose a recipe of clips: {list_first(_recipes_of_clips(), 8)}"
        )
    _check(registry.methods, method.name, method.encoder_needs, encoder, name)


def default_recipe(methods: Sequence[str], tasks: Sequence[str]) -> str:
    """The recipe of a run that names none: that of clips if a method or task takes clips only, else that of images."""
    for kind, names in ((registry.methods, methods), (registry.tasks, tasks)):
        known = [name for name in names if name in kind.names()]
        if not all(kind.load(name).takes_images for name in known):
            return DEFAULT_CLIPS
    return DEFAULT_RECIPE


def check_task_needs(task: Task, encoder: Encoder, name: str) -> None:
    """Raise InputError if a task needs what the pretrained encoder cannot do. Arguments as in `check_method_needs`."""
    if encoder.frames == 1 and not task.takes_images:
        raise InputError(
            f"task {task.name!r} ({registry.tasks.owner(task.name)}) takes clips and no images, and input.frames is 1; "
            f"choose a recipe of clips: {list_first(_recipes_of_clips(), 8)}"
        )
    if encoder.frames > 1 and not task.takes_clips:
        raise InputError(
            f"task {task.name!r} ({registry.tasks.owner(task.name)}) takes images and no clips, and input.frames is "
            f"{encoder.frames}; leave the task out"
        )
    _check(registry.tasks, task.name, task.encoder_needs, encoder, name)


def _check(kind: registry.Registry, plugin: str, needs: Set[str], encoder: Encoder, name: str) -> None:
    if needs <= encoder.can:
        return
    require_abilities(
        f"{kind.kind} {plugin!r} ({kind.owner(plugin)})",
        needs,
        encoder,
        name=f"{name} ({registry.encoders.owner(name)})",
        others=[other for other in _encoders_that_can(needs) if other != name],
    )


def _recipes_of_clips() -> list[str]:
    """Names of recipes whose input.frames is above 1."""
    return [name for name in preset_names() if read(name).get("input", {}).get("frames", 1) > 1]


def _encoders_that_can(needs: Set[str]) -> Iterator[str]:
    """Registered encoders that can do this, with some of their options at least."""
    for name in registry.encoders.names():
        try:
            encoder: type[Encoder] = registry.encoders.load(name)
        except InputError:  # a broken plugin
            continue
        if isinstance(encoder.can, Set) and needs <= encoder.can:
            yield name
