"""`mimbench table` and `mimbench verify` as a person runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mimbench.cli.output import print_table
from mimbench.display import relabelled
from mimbench.errors import InputError
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.tables.command import choose_format, table_command
from mimbench.report.tables.render.latex import LatexOptions

REFERENCE = Path(__file__).parents[3] / "results" / "reference"


def run(choice=None, *, results=None, format=None, layout=None, output=None):
    text = table_command(choice or Choice(), results=results, format=choose_format(format, output), layout=layout)
    if output is None:
        return text
    return print_table(text, output)


def test_the_format_follows_the_files_suffix(tmp_path):
    for name, start in (("a.md", "| Method"), ("a.tex", "% needs"), ("b/a.html", "<style>"), ("a.csv", "method,")):
        assert run(results=REFERENCE, output=tmp_path / name) is None
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    run(results=REFERENCE, output=tmp_path / "a.md", format="csv")
    assert (tmp_path / "a.md").read_text().startswith("method,")
    with pytest.raises(InputError, match="cannot be written"):
        run(results=REFERENCE, output=tmp_path)
    with pytest.raises(InputError, match="unknown table format 'pdf'"):
        run(results=REFERENCE, format="pdf")


def test_a_suffix_that_no_table_has_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "a.pdf"
    message = r"a.pdf: no table is a .pdf; there are .txt, .md, .csv, .html, .tex, or give --format"
    with pytest.raises(InputError, match=message):
        run(results=REFERENCE, output=path)
    with pytest.raises(InputError, match=message):
        run(layout="list", output=path)
    assert not path.exists()
    run(results=REFERENCE, output=path, format="csv")
    assert path.read_text().startswith("method,")
    run(layout="simmim-loss", results=REFERENCE, output=tmp_path / "plain")
    assert (tmp_path / "plain").read_text(encoding="utf-8").startswith("SimMIM, Table 4")


def test_layouts_and_lists_take_no_choice_that_they_would_not_heed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "simmim-masking          SimMIM, Table 1" in run(layout="list")
    assert "scope=full image" in run(layout="simmim-loss")
    with pytest.raises(InputError, match="--rows, --method: not for a layout"):
        run(Choice(row_fields=("method",), methods=("mae",)), layout="simmim-loss")
    with pytest.raises(InputError, match="--metric, --rank: not for a layout"):
        run(Choice(metrics=("top1",), ranks=True), layout="simmim-loss")
    with pytest.raises(InputError, match="--baseline: not for a list of published numbers; give --results"):
        run(Choice(baseline=Baseline.parse("mae"), published=True))
    assert "52.3" in run(Choice(methods=("simmim",), tasks=("detection",), published=True))
    with pytest.raises(InputError, match="results folder runs does not exist"):
        run()


def test_settings_measured_on_fewer_tasks_are_a_table_of_their_own():
    text = run(results=REFERENCE)
    comparison, ablations = text.split("\nAblations: ")
    rows = comparison.split("\n\n")[0].splitlines()
    assert len([row for row in rows if row.startswith("SimMIM ")]) == 1
    assert "Mask ratio" not in comparison
    assert [line.split()[:2] for line in ablations.splitlines() if line.startswith("SimMIM")] == [
        ["SimMIM", ratio] for ratio in ("0.3", "0.6", "0.8")
    ]
    chosen = Choice(methods=("mae", "simmim"), metrics=("top1", "AP"), baseline=Baseline.parse("mae"), ranks=True)
    assert run(chosen, results=REFERENCE).split("\nAblations: ")[1].count("SimMIM") == 3
    one_task = run(Choice(tasks=("linear-probe",)), results=REFERENCE)
    assert "Ablations" not in one_task  # all settings of a method were measured on it
    assert "Mask ratio" in one_task
    assert "Ablations" not in run(Choice(row_fields=("method",)), results=REFERENCE)


def test_names_are_those_of_papers_except_in_csv(framed, record):
    csv = run(results=REFERENCE, format="csv")
    head = csv.splitlines()[0].split(",")
    assert head[0] == "method"
    assert {"method.mask_ratio", "detection: AP"} <= set(head)
    assert "\nmaskfeat," in csv
    latex = run(results=REFERENCE, format="latex")
    assert r"AP\textsuperscript{box}" in latex
    assert "5-shot top-1" in latex.replace(r" \\ ", " ")
    assert "--" not in latex
    assert "AP<sup>box</sup>" in run(results=REFERENCE, format="html")
    with relabelled({"mae": "Ours"}):
        assert "Δ Ours [" in run(Choice(baseline=Baseline.parse("mae"), tasks=("knn",)), results=REFERENCE)


def test_latex_is_set_as_asked_for():
    def latex(**options):
        choice = Choice(tasks=("knn",))
        return table_command(choice, results=REFERENCE, format="latex", layout=None, latex=LatexOptions(**options))

    captioned = latex(caption="50 % & more", label="tab:main", is_wide=True)
    assert captioned.count(r"\begin{table*}") == captioned.count(r"\end{table*}") == 1
    assert "\\caption{50 \\% \\& more}\n\\label{tab:main}\n" in captioned
    bare = latex(is_bare=True)
    assert "{table" not in bare
    assert "textsuperscript" not in bare
    assert "minipage" not in bare
    assert r"\begin{tabular}" in bare


@pytest.mark.e2e
def test_the_commands(mimbench, tmp_path):
    done = mimbench("table", "--published", "--method", "simmim", "--task", "detection", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert "SimMIM,Swin-B,ImageNet-1K,800,detection,COCO,1024,AP,52.3,own" in done.stdout
    arguments = ("--results", str(REFERENCE), "--columns", "method", "--baseline", "random-init", "--spread", "se")
    done = mimbench("table", *arguments, "--output", "t.tex")
    assert (done.returncode, done.stdout) == (0, "written: t.tex\n"), done.stderr
    assert "\\toprule" in (tmp_path / "t.tex").read_text()
    count = len(list((REFERENCE / "records").iterdir()))
    done = mimbench("verify", str(REFERENCE))
    assert (done.returncode, done.stdout) == (0, f"{count} records, 0 checkpoints: all sound\n"), done.stderr
    (tmp_path / "r" / "records").mkdir(parents=True)
    done = mimbench("verify", "r")
    assert done.returncode == 2
    assert done.stderr == "mimbench: there are no records and no checkpoints below r; nothing to verify\n"
    (tmp_path / "r" / "records" / "x.json").write_text("{}")
    done = mimbench("verify", "r")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith("damaged: r/records/x.json is no mimbench record; ")
    assert done.stdout.splitlines()[1] == "1 record, 0 checkpoints: 1 damaged"


@pytest.mark.e2e
def test_the_benchmark_of_records_runs(tmp_path):
    script = Path(__file__).parents[3] / "benchmarks" / "records.py"
    command = [sys.executable, str(script), "--records", "40"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "load_records\n          120 rows" in done.stdout


def test_a_footnote_names_a_baseline_as_the_table_does():
    """A label may hide the name of a method from reviewers."""
    with relabelled({"simmim": "Ours"}):
        choice = Choice(methods=("greenmim",), tasks=("knn",), baseline=Baseline.parse("simmim"))
        text = run(choice, results=REFERENCE)
    assert "Ours was not measured with this encoder under this protocol" in text
    assert "simmim" not in text
