"""Tables: protocols kept apart, seeds summed up with n, text that no format chokes on."""

from __future__ import annotations

import csv
import io
import statistics

import pytest

from mimbench.errors import InputError
from mimbench.report.table import comparison, frame, render
from mimbench.store.record import Checkpoint, Cost, Named, Record, Value


def record(method="simmim", value=50.0, seed=0, metric="top1", **changes) -> Record:
    cost = Cost(seconds=1.0, device="cpu")
    metrics = changes.pop("metrics", {metric: value})
    protocol = changes.pop("protocol", {"layer": -1, "pooling": "mean"})
    return Record(
        **{
            "id": f"{method}-{seed}-{value}",
            "method": Named(name=method, version="1"),
            "task": Named(name="linear-probe", version="1"),
            "encoder": Named(name="vit", version="1"),
            "dataset": Named(name="mnist5k", version="f"),
            "protocol": protocol,
            "protocol_fingerprint": repr(protocol),
            "seed": seed,
            "recipe_name": "smoke",
            "recipe_passed": {},
            "recipe": {},
            "checkpoint": Checkpoint(fingerprint="abc", weights_sha256="0", seed=seed, cost=cost),
            "pretraining": "p",
            "metrics": {
                name: Value(value=v, unit="percent", n=10, low=0, high=100, higher_is_better=True)
                for name, v in metrics.items()
            },
            "chance": 10.0,
            "cost": cost,
            "provenance": {},
        }
        | changes
    )


def rows(records, *metrics) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(comparison(records, metrics), "csv"))))


def test_seeds_are_summed_up_with_their_number():
    values = [50.0, 54.0, 52.5]
    (row,) = rows([record(value=v, seed=i) for i, v in enumerate(values)])
    assert row == {"method": "simmim", "linear-probe: top1": f"52.2 ± {statistics.stdev(values):.1f} (n=3)"}


def test_one_seed_has_no_deviation():
    assert rows([record(), record("random-init", 41.26)]) == [
        {"method": "simmim", "linear-probe: top1": "50.0"},
        {"method": "random-init", "linear-probe: top1": "41.3"},
    ]


def test_protocols_never_share_a_column_and_say_how_they_differ():
    other = record(value=60.0, protocol={"layer": -1, "pooling": "token"})
    (row,) = rows([record(), other])
    assert row == {
        "method": "simmim",
        "linear-probe: top1 (pooling=mean)": "50.0",
        "linear-probe: top1 (pooling=token)": "60.0",
    }


def test_content_alone_also_sets_protocols_apart():
    records = [record(protocol={"dataset": {"content": content}}, value=v) for content, v in (("a", 1.0), ("b", 2.0))]
    (row,) = rows(records)
    assert sorted(row.values()) == ["1.0", "2.0", "simmim"]


def test_variations_are_rows_and_constant_labels_are_left_out():
    records = [record(value=v, varied={"method.mask_ratio": v / 100}) for v in (40.0, 60.0)]
    assert rows(records) == [
        {"method": "simmim", "varied": "method.mask_ratio=0.4", "linear-probe: top1": "40.0"},
        {"method": "simmim", "varied": "method.mask_ratio=0.6", "linear-probe: top1": "60.0"},
    ]


def test_settings_of_the_task_belong_to_the_protocol():
    tidy = frame([record(recipe_passed={"set": {"task.pooling": "mean", "pretrain.epochs": 3}})])
    assert tidy["set"].tolist() == ["pretrain.epochs=3"]


def test_the_primary_metric_is_shown_and_others_by_name():
    both = record(metrics={"AP": 40.0, "AP50": 70.0, "AP75": 30.0})
    assert rows([both]) == [{"method": "simmim", "linear-probe: AP": "40.0", "linear-probe: AP50": "70.0"}]
    assert rows([both], "AP75") == [{"method": "simmim", "linear-probe: AP75": "30.0"}]
    with pytest.raises(InputError, match=r"no record has a metric 'AP57'; did you mean .*'AP50'"):
        comparison([both], ["AP57"])


def test_a_cell_that_was_not_run_is_a_dash():
    probe, detection = record(), record("mae", task=Named(name="detection", version="1"), metric="AP")
    assert rows([probe, detection])[1] == {"method": "mae", "linear-probe: top1": "-", "detection: AP": "50.0"}


def test_formats():
    table = comparison([record("a|b"), record("c", 7.0)])
    assert render(table, "markdown").splitlines() == [
        "| method | linear-probe: top1 |",
        "| ------ | ------------------ |",
        "| a\\|b   | 50.0               |",
        "| c      | 7.0                |",
    ]
    assert render(table, "text").splitlines() == [
        "method  linear-probe: top1",
        "------  ------------------",
        "a|b     50.0",
        "c       7.0",
    ]
    with pytest.raises(InputError, match="unknown table format 'latx'"):
        render(table, "latx")


def test_nothing_makes_no_table():
    with pytest.raises(InputError, match="no records"):
        comparison([])
