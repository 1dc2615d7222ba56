"""`mimbench plot` as a person runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import plot_records as made
from helpers.refusals import refused
from mimbench.errors import InputError
from mimbench.report.plots.command import plot_command
from mimbench.report.plots.kinds import plot_kinds
from mimbench.report.plots.source import Options

REFERENCE = Path(__file__).parents[3] / "results" / "reference"


@pytest.fixture(scope="module")
def results(record, tmp_path_factory):
    records = made.ablation(record) + made.detected(record)
    return made.stored(records, tmp_path_factory.mktemp("results") / "runs")


def plot(kind, results, output, formats=(), **options):
    said = []
    plot_command(kind, Options(**options), results=results, output=output, formats=formats, say=said.append)
    return said


def written(said):
    return [line for line in said if not line.startswith("caption: ")]


def test_all_draws_what_there_is_and_says_what_is_missing(results, tmp_path):
    said = plot("all", results, tmp_path / "out", ["svg"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    drawn = {"bars", "ablation-method.mask_ratio", "cost", "loss", "seeds", "detections"}
    assert names == {f"{name}.svg" for name in drawn}
    skipped = {line.split()[1].rstrip(":") for line in said if line.startswith("skipped")}
    assert skipped == set(plot_kinds()) - drawn - {"ablation"}
    assert len(written(said)) == len(names) + len(skipped)
    assert len(said) - len(written(said)) == len(names)  # a caption each


def test_a_folder_gets_every_format_and_a_file_its_own(tmp_path):
    said = plot("bars", REFERENCE, tmp_path / "new" / "folder", tasks=("knn",))
    assert [line.rsplit(".", 1)[1] for line in written(said)] == ["png", "pdf", "svg"]
    assert written(plot("bars", REFERENCE, tmp_path / "one.pdf", tasks=("knn",))) == [
        f"written: {tmp_path / 'one.pdf'}"
    ]
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")


def test_what_is_too_high_for_a_page_goes_into_several_files(record, tmp_path):
    tall = made.stored(made.rebuilt(record), tmp_path / "runs", side=(300, 1200))
    said = plot("rebuilt", tall, tmp_path / "a.png")
    assert written(said) == [f"written: {tmp_path / name}" for name in ("a-1.png", "a-2.png")]
    plot("rebuilt", tall, tmp_path / "out", ["png"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"rebuilt-1.png", "rebuilt-2.png"}


@pytest.mark.parametrize(
    ("kind", "output", "formats", "options", "said"),
    [
        ("all", "a.png", (), {}, "several figures go into a folder"),
        ("bars", "a.png", ("pdf",), {}, "one file, and --format asks for pdf; give a folder"),
        ("bars", "a", ("gif",), {}, "unknown plot format 'gif'"),
        ("bars", "a.gif", (), {}, "a folder, or a file that ends in png, pdf, svg"),
        ("bars", "a", (), {"width": 0.5}, "--width 0.5: inches, from 2 to 20"),
        ("bars", "a", (), {"width": float("nan")}, "--width nan: inches"),
        ("all", "a", (), {"methods": ("sim",)}, "no record has a method 'sim'; did you mean"),
        ("tables", "a", (), {}, "unknown kind of plot 'tables'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(kind, output, formats, options, said, tmp_path):
    with pytest.raises(InputError, match=said):
        plot(kind, REFERENCE, tmp_path / output, formats, **options)
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        plot("bars", REFERENCE, tmp_path / "file" / "x", ["png"])
    with pytest.raises(InputError, match="does not exist; run `mimbench run` first"):
        plot("bars", tmp_path / "none", tmp_path / "x")


def test_the_command(quick, tmp_path):
    few = ("--method", "simmim,mae", "--baseline", "random-init")
    done = quick("plot", "bars", "--results", str(REFERENCE), "--output", "p/a.svg", *few, "--width", "5")
    first, caption = done.stdout.splitlines()
    assert (done.returncode, first) == (0, "written: p/a.svg"), done.stderr
    assert caption.startswith("caption: Mean difference, paired by seed")
    svg = (tmp_path / "p" / "a.svg").read_text()
    assert svg.count("<svg") == 1
    assert "paired by seed" not in svg.split("</metadata>")[1]
    refused(quick("plot", "layers", "--results", str(REFERENCE)), "nothing to plot as layers", "--set task.layers=all")
    bars = ("plot", "bars", "--results", str(REFERENCE))
    refused(quick(*bars, "--for", "cvrp"), "--for 'cvrp'", "did you mean 'cvpr'")
    refused(quick(*bars, "--for", "cvpr", "--width", "3"), "--for and --width both set the width")
    refused(quick(*bars, "--wide"), "--wide: the page of what")
    refused(quick(*bars, "--font", "No Such Font"), "no such font is installed")
    refused(quick(*bars, "--style", "no-such-style"), "no matplotlib style")
    refused(quick("plot", "bars", "--results", str(REFERENCE), "--spread", "se"), "--spread 'se'", "ci", "sd")
    refused(quick("plot", "seeds", "--results", str(REFERENCE), "--method", "mea"), "no record has a method 'mea'")
