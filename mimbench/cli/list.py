"""`mimbench list`."""

from __future__ import annotations

from typing import Annotated

from mimbench.cli.options import flag
from mimbench.text import print_text


def list_plugins(
    names: Annotated[bool, flag("--names", "Print only names and owners.")] = False,
) -> None:
    """List methods, tasks, datasets, encoders and recipes; broken plugins with the reason."""
    from mimbench import registry
    from mimbench.recipe.document import preset_names, read

    for kind in registry.ALL:
        print_text(f"{kind.kind}s")
        for plugin in kind.overview() if names else kind.survey():
            state = f"  BROKEN: {plugin.problem}" if plugin.problem else ""
            print_text(f"  {plugin.name:<24} {plugin.owner}{state}")
    print_text("recipes")
    for name in preset_names():
        print_text(f"  {name:<24} {read(name).get('summary', '')}")
