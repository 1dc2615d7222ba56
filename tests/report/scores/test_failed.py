"""Cells that failed are told beneath the table, whatever its format, and on the page; by one piece of code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from helpers.toy_plugins import TINY, Toy
from mimbench import registry
from mimbench.errors import InputError, RunError
from mimbench.report.page.build import write_page
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.tables.command import table_command
from mimbench.report.tables.render import FORMATS
from mimbench.report.viewer.render import unpack
from mimbench.store.failure import Failure, failure_path, read_failure, read_failures, write_failure
from mimbench.store.reading import failure_files
from mimbench.store.record import write_record


@pytest.fixture
def results(tmp_path, record):
    """Two seeds of simmim and mae went through; `fail` adds failures."""
    root = tmp_path / "runs"
    for method in ("simmim", "mae"):
        for seed in (0, 1):
            one = record(method, 50.0 + seed, seed, recipe={"pretrain": {"epochs": 3}})
            write_record(root / "records" / f"{one.id}.json", one)
    return root


def fail(root, method="simmim", task="linear-probe", seed=2, reason="no luck", time="1", id=None, **more):
    note = Failure(
        id=id or f"{method}-{task}-s{seed}-{len(list(root.rglob('*.json')))}",
        label="x",
        stage="task",
        reason=reason,
        error="RunError",
        method=method,
        task=task,
        seed=seed,
        checkpoint="0",
        recipe_name="smoke",
        recipe_passed={},
        provenance={"time": time},
        **more,
    )
    write_failure(failure_path(root, note.id), note)
    return failure_path(root, note.id)


def failures(root):
    return read_failures(failure_files(root))[0]


def table(root, format="text", **choice):
    said: list[str] = []
    text = table_command(Choice(**choice), results=root, format=format, layout=None, warn=said.append)
    return text, said


def below(root, **choice):
    """The remarks on failures beneath a table."""
    lines = [line for line in table(root, **choice)[0].split("\n\n")[-1].splitlines() if not line.startswith("[")]
    first = next((n for n, line in enumerate(lines) if "fail" in line), len(lines))
    return lines[first:]


def test_a_table_lists_its_failed_cells(results):
    assert below(results) == []
    fail(results)
    assert below(results) == [
        f"1 cell failed and has no number here; reasons in full: {results}/failures",
        "simmim on linear-probe, seed 2: no luck",
    ]


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_every_format_has_its_place_for_them(results, format):
    fail(results, reason="<b>a_b & {best} 100 %")
    text, said = table(results, format)
    if format == "csv":
        assert "failed" not in text
        assert said[1] == "simmim on linear-probe, seed 2: <b>a_b & {best} 100 %"
    else:
        assert said == []
        assert "1 cell failed and has no number here" in text
        assert "simmim on linear-probe, seed 2: " in text
    assert ("<b>" in text) == (format == "text")


def test_equal_failures_are_one_line_and_the_rest_is_counted(results):
    for method in ("mae", "simmim", "beit", "data2vec", "maskfeat"):
        for task in ("knn", "linear-probe"):
            for seed in (2, 3, 4):
                fail(results, method, task, seed, "CUDA is out\n of memory " + "very " * 40)
    fail(results, "mae", "knn", 7, "diverged", varied={"method.mask_ratio": 0.1})
    fail(results, "mae", "knn", 7, "diverged", varied={"method.mask_ratio": 0.2})
    fail(results, "mae", "finetune", 0, "diverged")
    fail(results, "mae", "finetune", 2, "diverged")
    for seed in range(6):
        fail(results, "beit", "few-shot", 2 * seed, "diverged")
    for seed in range(3):
        fail(results, "mae", "segmentation", seed, f"of its own {seed}")
    lines = below(results)
    assert lines[0].startswith("43 cells failed and have no number here; ")
    assert lines[1].startswith("5 methods on knn, linear-probe, seeds 2 to 4: CUDA is out of memory very very")
    assert lines[1].endswith(" ...")
    assert len(lines[1]) < 160
    assert lines[2:] == [
        "beit on few-shot, 6 seeds: diverged",
        "mae on finetune, seeds 0, 2: diverged",
        "mae on knn, seed 7, 2 cells: diverged",
        "and 3 cells more",
    ]


def test_only_what_the_table_would_have_shown_counts(results):
    fail(results, "beit")
    fail(results, "mae", "knn")
    assert below(results)[0].startswith("2 cells")
    assert below(results, methods=("simmim",)) == []
    assert below(results, methods=("mae",))[1:] == ["mae on knn, seed 2: no luck"]
    assert below(results, methods=("simmim",), baseline=Baseline.parse("mae"))[1:] == ["mae on knn, seed 2: no luck"]
    assert below(results, tasks=("linear-probe",))[1:] == ["beit on linear-probe, seed 2: no luck"]
    assert below(results, metrics=("top1",))[1:] == ["beit on linear-probe, seed 2: no luck"]
    for chosen, choice in (({"methods": ("beit",)}, "method 'beit'"), ({"tasks": ("knn",)}, "task 'knn'")):
        with pytest.raises(
            InputError, match=f"no record has a {choice}: 1 cell of it failed; the reasons are in .*res$"
        ):
            table(results, **chosen)


def test_a_cell_with_a_later_record_is_no_failure(results):
    known = next((results / "records").iterdir()).stem
    path = fail(results, id=known)
    assert below(results) == []
    path.write_text("{}")
    assert below(results) == []
    path.rename(path.with_name("renamed.json"))
    fail(results, id=known).rename(path.with_name("copied.json"))
    assert below(results) == [f"failure {path.with_name('renamed.json')} is corrupt (KeyError: 'sha256'); delete it"]


def test_a_damaged_note_is_named_and_stops_neither_table_nor_page(results, tmp_path):
    path = fail(results)
    path.write_text(path.read_text().replace("no luck", "luck"))
    message = f"failure {path} does not match its own sha256: it was altered or damaged; delete it"
    assert below(results) == [message]
    page = write_page(results, tmp_path / "page").read_text()
    assert message in json.dumps(unpack(page))
    with pytest.raises(InputError, match="altered or damaged"):
        read_failure(path)


def test_all_folders_of_results_below_count_each_cell_once(results, tmp_path):
    here = fail(results, id="same", reason="first", time="1")
    other = tmp_path / "other"
    fail(other, id="same", reason="last", time="2")
    fail(other, "beit", id="more")
    assert [failure.reason for failure in failures(tmp_path)] == ["no luck", "last"]
    assert below(tmp_path)[0].endswith(f"in full: {other}/failures, {results}/failures")
    assert [failure.reason for failure in failures(results / "records")] == ["first"]
    (other / "failures").rename(here.parent / "of another machine")
    assert [failure.id for failure in failures(results)] == ["more", "same"]
    assert len(below(results)) == 3


def test_every_command_reports_failures_if_there_are_no_records(tmp_path, quick):
    fail(tmp_path / "runs", seed=0)
    fail(tmp_path / "runs", seed=1)
    message = "there are no records in runs: all that was run failed, 2 cells; the reasons are in runs/failures"
    for command in (["table"], ["plot", "bars"], ["report", "--output", "page"]):
        done = quick(*command, "--results", "runs")
        assert (done.returncode, done.stderr) == (2, f"mimbench: {message}\n"), command


def test_a_layout_lists_failures_of_cells_that_it_compares(results):
    fail(results)
    fail(results, task="finetune", seed=5)
    fail(results, "mae", "finetune")
    text = table_command(Choice(), results=results, format="text", layout="simmim-masking")
    assert "1 cell failed and has no number here" in text
    assert "simmim on finetune, seed 5: no luck" in text


def test_what_failed_in_a_run_is_listed_under_its_table(quick, tmp_path, monkeypatch):
    def unlucky(name: str, seed: int) -> None:
        if seed == 1:
            raise RunError("no luck")

    monkeypatch.setitem(registry.tasks.replacements, "toy", Toy)
    monkeypatch.setattr(Toy, "hook", staticmethod(unlucky))
    settings = [word for setting in TINY for word in ("--set", setting)]
    arguments = ["--recipe", "smoke", *settings, "--method", "random-init", "--task", "toy", "--seeds", "0,1"]
    assert quick("run", *arguments).returncode == 1
    done = quick("table", "--results", "runs")
    assert done.returncode == 0, done.stderr
    count, reason = done.stdout.splitlines()[-2:]
    assert count == "1 cell failed and has no number here; reasons in full: runs/failures"
    assert reason.startswith("random-init on toy, seed 1: no luck (task 'toy' of no installed package, ")
    done = quick("table", "--results", "runs", "--format", "csv")
    assert done.stderr.splitlines()[-1] == reason
    monkeypatch.setattr(Toy, "hook", staticmethod(lambda name, seed: None))
    assert quick("run", *arguments).returncode == 0
    assert "failed" not in quick("table", "--results", "runs").stdout


def test_without_failures_nothing_heavy_is_imported(results):
    (results / "failures").mkdir()
    script = (
        "import sys; from pathlib import Path; from mimbench.report.tables.command import table_command as t; "
        "from mimbench.report.scores.choice import Choice; "
        "t(Choice(), results=Path(sys.argv[1]), format='text', layout=None); "
        "print('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(results)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
