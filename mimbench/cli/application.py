"""The commands put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from mimbench._version import __version__
from mimbench.cli import derive, doctor, export, import_, list, parity, plot, report, run, show, table, verify
from mimbench.cli.options import examples
from mimbench.text import print_text


def _print_version(is_requested: bool) -> None:
    if is_requested:
        print_text(f"mimbench {__version__}")
        raise typer.Exit


def common_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version, metavar="")
    ] = False,
) -> None:
    pass


app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: rich takes a third of the time that --help needs, and drops "[...]"
    help="Pretrain masked-image-modeling methods, evaluate them on downstream tasks, and compare them.",
    epilog=examples("mimbench list", "mimbench run --method simmim --task detection", "mimbench table"),
    callback=common_options,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "list": list.list_plugins,
    "table": table.table,
    "plot": plot.plot,
    "derive": derive.derive,
    "report": report.report,
    "verify": verify.verify,
    "doctor": doctor.doctor,
    "parity": parity.parity,
    "import": import_.import_,
    "export": export.export,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(show.app, name="show")
