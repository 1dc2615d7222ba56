"""The commands put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from mimbench._version import __version__
from mimbench.cli import (
    bench,
    check,
    cost,
    derive,
    doctor,
    export,
    import_,
    list,
    new,
    parity,
    plan,
    plot,
    report,
    run,
    show,
    status,
    table,
    verify,
)
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
COMMANDS: tuple[tuple[str, Callable[..., None], tuple[str, ...]], ...] = (
    (
        "run",
        run.run,
        (
            "mimbench run --method simmim --task detection",
            "mimbench run --method mae,random-init --task knn --recipe smoke --seeds 0,1",
            "mimbench run --method simmim --task linear-probe --vary method.mask_ratio=0.4,0.6",
            "mimbench run --grid grid.toml --dry-run",
        ),
    ),
    ("status", status.status, ("mimbench status --results runs", "mimbench status grid.toml --json")),
    ("list", list.list_plugins, ("mimbench list", "mimbench list --check")),
    (
        "check",
        check.check,
        ("mimbench check method simmim", "mimbench check encoder vit --set encoder.position=learned"),
    ),
    (
        "plan",
        plan.plan,
        (
            "mimbench plan --method mae --task finetune,detection --recipe imagenet-vit-base --gpus 8xH100",
            "mimbench plan --method simmim --recipe imagenet-swin-base --gpus 16xFOO --memory 48GB",
            "mimbench plan --method mae --task finetune --measure 5",
        ),
    ),
    (
        "cost",
        cost.cost,
        ("mimbench cost --recipe imagenet-vit-base", "mimbench cost --method simmim,mae --format markdown"),
    ),
    (
        "table",
        table.table,
        (
            "mimbench table --task knn,linear-probe --baseline random-init",
            "mimbench table --task detection --metric all --output detection.tex",
            "mimbench table --published --method simmim --task linear-probe",
        ),
    ),
    ("plot", plot.plot, ("mimbench plot all --output figures", "mimbench plot bars --task knn --output knn.pdf")),
    ("derive", derive.derive, ("mimbench derive list", "mimbench derive mce --format latex")),
    ("report", report.report, ("mimbench report --output page", "mimbench report --watch")),
    ("verify", verify.verify, ("mimbench verify runs",)),
    ("doctor", doctor.doctor, ("mimbench doctor",)),
    ("new", new.new, ("mimbench new method sharpen", "mimbench new task my-task --output my-task")),
    ("parity", parity.parity, ("mimbench parity tests/golden/simmim_vit_tiny.npz",)),
    ("import", import_.import_, ("mimbench import mae_pretrain_vit_base.pth --method mae --encoder vit-base",)),
    (
        "export",
        export.export,
        (
            "mimbench export dbed40d371925f42 --output encoder.safetensors",
            "mimbench export dbed40d371925f42 --push lab/encoder",
        ),
    ),
)
"""Name, function and examples of each command."""
for name, command, lines in COMMANDS:
    app.command(name, epilog=examples(*lines))(command)
app.add_typer(show.app, name="show")
app.add_typer(bench.app, name="bench")
