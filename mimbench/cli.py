"""The command line. Importing this imports neither torch nor mmengine: `--help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mimbench import options
from mimbench._version import __version__
from mimbench.advice import advice_on, described
from mimbench.errors import Interrupted, MimbenchError
from mimbench.files import writing
from mimbench.recipe import DEFAULT_RECIPE
from mimbench.report.cli import plot, report, robustness, table
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_any_text, print_line, print_text


def _print_version(is_requested: bool) -> None:
    if is_requested:
        print_text(f"mimbench {__version__}")
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pretrain masked-image-modeling methods, put them through downstream tasks, and compare.",
)
show = typer.Typer(no_args_is_help=True, help="Print what a name stands for.")
app.add_typer(show, name="show")


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of checkpoints, records and pictures.")]


@app.command()
def run(
    task: Annotated[str | None, typer.Option("--task", help="Downstream tasks, comma-separated.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="Methods, comma-separated.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Use this one (fingerprint or folder); pretrain nothing.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help=f"A preset's name or a TOML file. [default: {DEFAULT_RECIPE}]")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds, comma-separated. [default: 0]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key: table.key=value.")] = None,
    vary: Annotated[list[str] | None, typer.Option("--vary", help="Run each value: table.key=x,y,z.")] = None,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="A TOML file that says all of this; flags override it.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, what is done and how long the rest may take; run nothing."),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Pretrain and measure anew, and replace the checkpoints and records.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option("--results", help="Folder of checkpoints, records and pictures. [default: runs]")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the records as JSON on standard output.")] = False,
) -> None:
    """Pretrain each method once, run each task on it, write a record each and print the table.

    What is recorded already is skipped, so the same command goes on where it stopped; several of them may run at
    once on one results folder and share the work.
    """
    from mimbench.harness.command import Asked, run_command
    from mimbench.recipe.document import parse_assignments, parse_variations

    with _stoppable(fresh):
        asked = Asked(
            methods=None if method is None else options.names(method),
            tasks=None if task is None else options.names(task),
            recipe=recipe,
            seeds=None if seeds is None else options.seeds(seeds),
            settings=parse_assignments(set_ or []),
            variations=parse_variations(vary or []),
            results=results,
            grid=grid,
            checkpoint=checkpoint,
            device=device,
            fresh=fresh,
        )
        code = run_command(asked, dry=dry_run, as_json=json_)
    raise typer.Exit(code)


@app.command("list")
def list_(
    names: Annotated[bool, typer.Option("--names", help="Names and owners only; imports no plugin.")] = False,
) -> None:
    """List methods, tasks, datasets, encoders and recipes; broken plugins with their reason."""
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


@show.command("recipe")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A preset's name or a TOML file.")] = DEFAULT_RECIPE,
    method: Annotated[str, typer.Option("--method", help="The method to resolve it for.")] = "simmim",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key: table.key=value.")] = None,
) -> None:
    """Print a recipe resolved: every value, its source, and the arithmetic of scaled rates."""
    from mimbench.recipe.document import parse_assignments
    from mimbench.recipe.show import describe

    print_text(describe(name, method, parse_assignments(set_ or [])), end="")


@show.command("detection")
def show_detection(
    recipe: Annotated[str, typer.Option("--recipe", help="A preset's name or a TOML file.")] = DEFAULT_RECIPE,
    method: Annotated[str, typer.Option("--method", help="The method to resolve it for.")] = "simmim",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key: table.key=value.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write it to this file instead.")] = None,
) -> None:
    """Print the detection task as an mmdet config file, which plain mmdet runs."""
    from mimbench.harness.show_task import task_file
    from mimbench.recipe.document import parse_assignments

    text = task_file("detection", recipe, method, parse_assignments(set_ or []))
    if output is None:
        print_text(text, end="")
        return
    with writing(f"--output {output}"):
        output.write_text(text, encoding="utf-8")


for command in (table, plot, robustness, report):
    app.command()(command)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A results folder, or one above several.")],
) -> None:
    """Check records, checkpoints, pictures and all else against their hashes; exit code 1 if any is damaged."""
    from mimbench.store.verify import verify as verified

    found = verified(folder)
    print_text("\n".join(found.lines()))
    raise typer.Exit(1 if found.damage else 0)


@app.command()
def doctor() -> None:
    """Tell versions, devices, which mmcv ops there are, and what is missing and how to get it."""
    from mimbench.harness.doctor import report

    healthy, text = report()
    print_text(text)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def parity(
    files: Annotated[list[Path], typer.Argument(help="Golden vectors (.npz) of official implementations.")],
) -> None:
    """Compare loss, outputs and gradients with golden vectors; exit code 1 beyond tolerance."""
    from mimbench.parity.comparison import parity_command

    raise typer.Exit(parity_command(files))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A checkpoint: .pth, .pt or .safetensors.")],
    method: Annotated[str, typer.Option("--method", help="The method that it was pretrained with.")],
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Its encoder's size: vit-base, swin-tiny, convnext-base, ...")
    ] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Instead: the recipe that names the encoder.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Which weights, if the file holds several: model_ema, teacher, ...")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key: table.key=value.")] = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Take in another code's checkpoint: every task then runs on it as if it had been pretrained here."""
    from mimbench.harness.exchange import import_command
    from mimbench.recipe.document import parse_assignments

    settings = parse_assignments(set_ or [])
    raise typer.Exit(
        import_command(file, method=method, encoder=encoder, recipe=recipe, settings=settings, results=results, key=key)
    )


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="A fingerprint, or a checkpoint's folder.")],
    out: Annotated[Path, typer.Argument(help="The file to write: NAME.safetensors.")],
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write a checkpoint's encoder as safetensors under timm's names."""
    from mimbench.harness.exchange import export_command

    raise typer.Exit(export_command(checkpoint, out, results=results))


def main() -> None:
    """Entry point: every foreseen error is one line on standard error and an exit code, never a traceback."""
    print_any_text()
    try:
        sys.exit(typer.main.get_command(app).main(standalone_mode=False) or 0)
    except MimbenchError as error:
        print_line(f"mimbench: {error}", error=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print_text("mimbench: stopped", error=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        # A usage error of typer's parser, which some versions of typer carry within themselves.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        line, code = _foreseen(error)
        if line is None:
            raise
        print_line(f"mimbench: {line}", error=True)
        sys.exit(code)


def _foreseen(error: Exception) -> tuple[str | None, int]:
    """One line and an exit code for an error of the machine or of a plugin's code; None for all others.

    With MIMBENCH_DEBUG=1 always None, so that the traceback is printed.
    """
    if os.environ.get("MIMBENCH_DEBUG"):
        return None, 1
    if advice_on(error):
        return described(error), 1
    from mimbench.harness.running.blame import whose

    culprit = whose(error)
    if not culprit:
        return None, 1
    return f"{described(error)} ({culprit}); MIMBENCH_DEBUG=1 shows the traceback", 2


@contextmanager
def _stoppable(fresh: bool) -> Iterator[None]:
    """End a run with one line on Ctrl-C, SIGTERM or SIGHUP. All that it leaves is whole, or is resumed next time.

    fresh: what is there already is made anew, each time that the command is given.
    """
    from mimbench.engine.stopping import stop_at_once

    try:
        with stop_at_once():
            yield
    except Interrupted as stop:
        kept = str(stop) or "finished pretrainings and records are kept, and what was running starts over"
        again = "With --fresh the same command starts over" if fresh else "The same command goes on from there"
        print_text(f"mimbench: stopped by {stop.signal.name}; {kept}. {again}.", error=True)
        raise typer.Exit(stop.exit_code) from None
