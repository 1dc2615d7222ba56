"""The command line. Importing this imports neither torch nor mmengine: `--help` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mimbench.errors import InputError, MimbenchError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pretrain masked-image-modeling methods, put them through downstream tasks, and compare.",
)
show = typer.Typer(no_args_is_help=True, help="Print what a name stands for.")
app.add_typer(show, name="show")

DEFAULT_RECIPE = "mnist5k-vit-tiny"
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of checkpoints, records and pictures.")]


@app.command()
def run(
    task: Annotated[str, typer.Option("--task", help="Downstream tasks, comma-separated.")],
    method: Annotated[str, typer.Option("--method", help="Methods, comma-separated.")] = "",
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Use this one (fingerprint or folder); pretrain nothing.")
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="A preset's name or a TOML file.")] = DEFAULT_RECIPE,
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, comma-separated.")] = "0",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key: table.key=value.")] = None,
    vary: Annotated[list[str] | None, typer.Option("--vary", help="Run each value: table.key=x,y,z.")] = None,
    results: ResultsOption = Path("runs"),
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the records as JSON on standard output.")] = False,
) -> None:
    """Pretrain each method once, run each task on it, write a record each and print the table."""
    from mimbench.harness.command import run_command
    from mimbench.recipe.document import parse_assignments, parse_variations

    with _stoppable():
        code = run_command(
            methods=_names(method),
            tasks=_names(task),
            recipe=recipe,
            seeds=_seeds(seeds),
            settings=parse_assignments(set_ or []),
            variations=parse_variations(vary or []),
            results=results,
            device=device,
            as_json=json_,
            checkpoint=checkpoint,
        )
    raise typer.Exit(code)


@app.command("list")
def list_(
    names: Annotated[bool, typer.Option("--names", help="Names and owners only; imports no plugin.")] = False,
) -> None:
    """List methods, tasks, datasets, encoders and recipes; broken plugins with their reason."""
    from mimbench import registry
    from mimbench.recipe.document import preset_names, read

    for kind in registry.ALL:
        print(f"{kind.kind}s")
        for plugin in kind.overview() if names else kind.survey():
            state = f"  BROKEN: {plugin.problem}" if plugin.problem else ""
            print(f"  {plugin.name:<16} {plugin.owner}{state}")
    print("recipes")
    for name in preset_names():
        print(f"  {name:<16} {read(name).get('summary', '')}")


@show.command("recipe")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A preset's name or a TOML file.")] = DEFAULT_RECIPE,
    method: Annotated[str, typer.Option("--method", help="The method to resolve it for.")] = "simmim",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key: table.key=value.")] = None,
) -> None:
    """Print a recipe resolved: every value, its source, and the arithmetic of scaled rates."""
    from mimbench.recipe.document import parse_assignments
    from mimbench.recipe.show import describe

    print(describe(name, method, parse_assignments(set_ or [])), end="")


@app.command()
def table(
    results: ResultsOption = Path("runs"),
    format_: Annotated[str, typer.Option("--format", help="text, markdown or csv.")] = "text",
    metrics: Annotated[str, typer.Option("--metrics", help="Metrics, comma-separated; default: the primary.")] = "",
) -> None:
    """Print the comparison table of all records in a results folder."""
    from mimbench.report.table import FORMATS, comparison, render
    from mimbench.store.record import read_records

    if format_ not in FORMATS:
        raise InputError(f"unknown table format {format_!r}; choose one of {', '.join(FORMATS)}")
    print(render(comparison(read_records(results), _names(metrics)), format_), end="")


@app.command()
def doctor() -> None:
    """Tell versions, devices, which mmcv ops there are, and what is missing and how to get it."""
    from mimbench.harness.doctor import report

    healthy, text = report()
    print(text)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def parity(
    files: Annotated[list[Path], typer.Argument(help="Golden vectors (.npz) of official implementations.")],
) -> None:
    """Compare loss, outputs and gradients with golden vectors; exit code 1 beyond tolerance."""
    from mimbench.harness.parity import parity_command

    raise typer.Exit(parity_command(files))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A checkpoint: .pth, .pt or .safetensors.")],
    method: Annotated[str, typer.Option("--method", help="The method that it was pretrained with.")],
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Its encoder's size: vit-base, swin-tiny, convnext-base, ...")
    ] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Instead: the recipe that names the encoder.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key: table.key=value.")] = None,
    results: ResultsOption = Path("runs"),
) -> None:
    """Take in another code's checkpoint: every task then runs on it as if it had been pretrained here."""
    from mimbench.harness.exchange import import_command
    from mimbench.recipe.document import parse_assignments

    settings = parse_assignments(set_ or [])
    raise typer.Exit(
        import_command(file, method=method, encoder=encoder, recipe=recipe, settings=settings, results=results)
    )


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="A fingerprint, or a checkpoint's folder.")],
    out: Annotated[Path, typer.Argument(help="The file to write: NAME.safetensors.")],
    results: ResultsOption = Path("runs"),
) -> None:
    """Write a checkpoint's encoder as safetensors under timm's names."""
    from mimbench.harness.exchange import export_command

    raise typer.Exit(export_command(checkpoint, out, results=results))


def main() -> None:
    """Entry point: every foreseen error is one line on standard error and an exit code, never a traceback."""
    try:
        sys.exit(typer.main.get_command(app).main(standalone_mode=False) or 0)
    except MimbenchError as error:
        print(f"mimbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        # A usage error of typer's parser, which some versions of typer carry within themselves.
        if not (hasattr(error, "show") and hasattr(error, "exit_code")):
            raise
        error.show()
        sys.exit(error.exit_code)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C ends a run with one line; all that it leaves is whole, or is taken up again by the same command."""
    try:
        yield
    except KeyboardInterrupt:
        print("mimbench: stopped; nothing is half-written. The same command goes on from here.", file=sys.stderr)
        raise typer.Exit(130) from None


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in _names(text)]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**32:
        raise InputError(
            f"--seeds {text!r}: seeds are whole numbers from 0 to 2^32 - 1, comma-separated, such as 0,1,2"
        )
    return seeds
