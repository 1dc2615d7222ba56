"""A package that mimbench has never heard of, really installed: listed, run, and contained where it is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def test_it_is_listed_with_its_owner_and_the_broken_part_with_its_reason(mimbench, example_plugin):
    done = mimbench("list", PYTHONPATH=example_plugin)
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert "mimbench-example 0.3.0" in rows["deblur"]
    assert "BROKEN" not in rows["deblur"]
    assert "BROKEN" in rows["deblur-broken"]
    assert "needs_what_is_not_there" in rows["deblur-broken"]
    assert "BROKEN" not in rows["simmim"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("--set", "data.name=shapes", "--set", "encoder.name=plain-cnn"),
    ],
    ids=["built-in data and encoder", "own data and encoder"],
)
def test_it_runs_like_a_built_in(mimbench, example_plugin, settings):
    run = ("run", "--recipe", "smoke", "--json", *settings)
    method = ("--method", "deblur", "--set", "method.mask_ratio=0.25")
    done = mimbench(*run, *method, "--task", "linear-probe,nearest-mean", PYTHONPATH=example_plugin)
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert [record["task"]["name"] for record in records] == ["linear-probe", "nearest-mean"]
    for record in records:
        assert record["method"] == {"name": "deblur", "version": "1"}
        assert record["recipe"]["method"] == {"name": "deblur", "mask_ratio": 0.25}
    if settings:
        assert records[1]["recipe"]["encoder"]["name"] == "plain-cnn"
        assert records[1]["dataset"]["name"] == "shapes"
        # A frozen encoder tells squares from discs, so that the example shows a score above chance (50 %).
        assert records[1]["metrics"]["top1"]["value"] > 60


@pytest.mark.e2e
def test_its_recipe_and_its_tables_of_a_preset_are_used(mimbench, example_plugin):
    listed = mimbench("list", PYTHONPATH=example_plugin).stdout
    assert "shapes-tiny              mimbench-example 0.3.0  Squares and discs" in listed
    preset = mimbench("show", "recipe", "smoke", "--method", "deblur", PYTHONPATH=example_plugin).stdout
    assert "mask_ratio = 0.6  # mimbench-example 0.3.0" in preset
    run = ("run", "--recipe", "shapes-tiny", "--method", "deblur", "--task", "nearest-mean", "--json")
    done = mimbench(*run, PYTHONPATH=example_plugin)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["recipe"]["method"] == {"name": "deblur", "mask_ratio": 0.6}
    assert record["recipe"]["encoder"]["name"] == "plain-cnn"
    assert record["recipe"]["encoder"]["depth"] == 1
    assert record["dataset"]["name"] == "shapes"


@pytest.mark.e2e
def test_plots_use_its_display_file(mimbench, example_plugin, tmp_path):
    run = ("run", "--method", "deblur", "--task", "nearest-mean", "--recipe", "smoke", "--seeds", "0,1")
    done = mimbench(*run, PYTHONPATH=example_plugin)
    assert done.returncode == 0, done.stderr
    done = mimbench("plot", "seeds", "--output", "seeds.svg", PYTHONPATH=example_plugin)
    assert done.returncode == 0, done.stderr
    assert "#117755" in (tmp_path / "seeds.svg").read_text()


def test_its_display_file_is_read_without_an_import_of_the_package(example_plugin):
    code = (
        "import sys\n"
        "from mimbench.report.plots.style import method_style, metric_label\n"
        "print(metric_label('nearest-mean', 'top1', 'percent'))\n"
        "print(method_style('deblur'))\n"
        "print([name for name in sys.modules if name.startswith(('torch', 'mimbench_example'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": example_plugin}
    )
    label, style, imported = done.stdout.splitlines()
    assert label == "Nearest-mean accuracy (%)"
    assert style == "MethodStyle(colour='#117755', marker='v', hatch='')"
    assert imported == "[]"


def test_the_broken_part_is_refused_with_its_owner(mimbench, example_plugin):
    run = ("run", "--task", "linear-probe", "--recipe", "smoke", "--json")
    broken = mimbench(*run, "--method", "deblur-broken", PYTHONPATH=example_plugin)
    assert broken.returncode == 2
    assert "method 'deblur-broken' of mimbench-example 0.3.0 is broken" in broken.stderr


def test_the_example_plugins_pass_their_checks(example_plugin, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(example_plugin)
    from mimbench.testing import check_dataset, check_encoder, check_method, check_task
    from mimbench_example.agree import Agree
    from mimbench_example.deblur import Deblur
    from mimbench_example.nearest_mean import NearestMean
    from mimbench_example.plain_cnn import PlainCNN
    from mimbench_example.shapes import Shapes

    results = {
        "task": check_task(NearestMean, folder=tmp_path),
        "dataset": check_dataset(Shapes, cache=tmp_path),
        "encoder": check_encoder(PlainCNN),
        "method": check_method(Deblur),
        "method of two views": check_method(Agree),
        "method around its encoder": check_method(Deblur, encoder=PlainCNN),
    }
    failures = [(kind, one) for kind, all_of in results.items() for one in all_of if one.status == "failed"]
    assert failures == []


def test_the_doctor_finds_the_broken_part(mimbench, example_plugin):
    done = mimbench("doctor", PYTHONPATH=example_plugin)
    assert done.returncode == 1
    assert "deblur-broken" in done.stdout
