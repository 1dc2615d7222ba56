"""The flags of a run as options of the harness, for the commands that have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mimbench.options import parse_seeds, split_names

if TYPE_CHECKING:
    from mimbench.harness.run import RunOptions


def run_options(
    method: str | None,
    task: str | None,
    recipe: str | None,
    seeds: str | None,
    set_: Sequence[str] | None,
    vary: Sequence[str] | None,
    results: Path | None,
    grid: Path | None,
    checkpoint: str | None,
    device: str,
    fresh: bool = False,
) -> RunOptions:
    """Raises InputError: a flag cannot be parsed."""
    from mimbench.harness.run import RunOptions
    from mimbench.recipe.document import parse_assignments, parse_variations

    return RunOptions(
        methods=None if method is None else split_names(method),
        tasks=None if task is None else split_names(task),
        recipe=recipe,
        seeds=None if seeds is None else parse_seeds(seeds),
        settings=parse_assignments(set_ or []),
        variations=parse_variations(vary or []),
        results=results,
        grid=grid,
        checkpoint=checkpoint,
        device=device,
        fresh=fresh,
    )
