"""`mimbench show`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.refusals import refused
from mimbench import registry
from mimbench.contract import Config

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def test_show_recipe_prints_values_and_arithmetic(quick):
    shown = quick("show", "recipe", "smoke").stdout
    assert "[pretrain]" in shown
    assert "lr = base_lr" in shown


def option_paths(config: type[Config], prefix: str = "") -> list[str]:
    paths = []
    for name, field in config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            paths += option_paths(field.annotation, f"{prefix}{name}.")
        else:
            paths.append(f"{prefix}{name}")
    return paths


@pytest.mark.parametrize("kind", registry.ALL, ids=lambda kind: kind.kind)
def test_every_plugin_is_shown_with_owner_and_options(quick, kind):
    for name in kind.names():
        done = quick("show", kind.kind, name)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == f"{kind.kind} {name}, from {kind.owner(name)}"
        for path in option_paths(kind.load(name).Config):
            assert any(line.startswith(f"  {path}: ") for line in lines), (name, path)


def test_options_have_type_default_and_description(quick):
    shown = quick("show", "method", "mae").stdout
    assert "  mask: random | block | grid | " in shown
    assert "  norm_pixels: bool = true\n      Predict the pixels of each patch" in shown
    assert "needs of the encoder: visible-only\n" in shown


def test_a_task_is_shown_with_metrics_and_protocols(quick):
    shown = quick("show", "task", "detection").stdout
    assert "  AP         percent, 0 to 100, higher is better\n" in shown
    assert "  embedded " in shown
    assert "[tasks.detection] of a recipe" in shown
    assert "  train.schedule.kind: cosine | " in shown


def test_a_record_is_shown_in_words(quick):
    path = sorted((REFERENCE / "records").glob("simmim-linear-probe-s0-*.json"))[0]
    record = json.loads(path.read_text())
    shown = quick("show", "record", path.stem, "--results", str(REFERENCE)).stdout
    assert shown.startswith(f"record {path.stem}\n")
    top1 = record["metrics"]["top1"]
    assert f"top1  {top1['value']:.6g} percent over {top1['n']} samples; higher is better" in shown
    assert record["checkpoint"]["fingerprint"] in shown
    assert quick("show", "record", str(path)).stdout.splitlines()[2:] == shown.splitlines()[2:]


def test_bad_names_are_one_clear_line(quick):
    refused(quick("show", "method", "simim"), "unknown method 'simim'", "'simmim'")
    refused(quick("show", "task", "knn", "--config"), "knn", "cannot be written")
    refused(quick("show", "task", "knn", "--set", "task.k=3"), "--config")
    refused(quick("show", "record", "simmim", "--results", str(REFERENCE)), "begin with 'simmim'")
    refused(quick("show", "record", "nothing", "--results", str(REFERENCE)), "there is no record 'nothing'")
    refused(quick("show", "record", "gone.json"), "there is no file gone.json; name a record's file, or its id")
