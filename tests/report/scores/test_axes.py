"""What rows and columns stand for: by choice, and what has to be told besides, on the side it belongs to."""

from __future__ import annotations

from helpers.tables import rows_by_title
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.render.numbers import cell_text


def test_variations_are_columns_of_labels_in_their_order(record, framed):
    records = [record(value=v, varied={"method.mask_ratio": v / 100}) for v in (60.0, 5.0, 40.0)]
    assert rows_by_title(build_comparison(framed(records))) == [
        {"method": "simmim", "method.mask_ratio": "0.05", "linear-probe: top1": "5.0"},
        {"method": "simmim", "method.mask_ratio": "0.4", "linear-probe: top1": "40.0"},
        {"method": "simmim", "method.mask_ratio": "0.6", "linear-probe: top1": "60.0"},
    ]


def test_a_varied_path_can_be_the_columns(record, framed):
    records = [
        record(value=v, seed=seed, varied={"method.mask_ratio": v / 100}) for v in (60.0, 40.0) for seed in (0, 1)
    ]
    table = build_comparison(framed(records), Choice(column_fields=("method.mask_ratio",), row_fields=("method",)))
    assert rows_by_title(table) == [
        {
            "method": "simmim",
            "method.mask_ratio=0.4": "40.0 ± 0.0 (n=2)",
            "method.mask_ratio=0.6": "60.0 ± 0.0 (n=2)",
        }
    ]
    assert [cell.mark for cell in table.rows[0]] == ["", "", "best"]


def test_different_settings_are_never_averaged(record, framed):
    records = [record(value=v, seed=0, pretraining=name) for name, v in (("aaaaaaaa", 40.0), ("bbbbbbbb", 60.0))]
    table = build_comparison(framed(records), Choice(row_fields=("method",)))
    assert rows_by_title(table) == [
        {"method": "simmim", "pretraining": "aaaaaa", "linear-probe: top1": "40.0"},
        {"method": "simmim", "pretraining": "bbbbbb", "linear-probe: top1": "60.0"},
    ]
    tasks = [record(), record(task="detection", metric="AP", value=30.0)]
    assert rows_by_title(
        build_comparison(framed(tasks), Choice(row_fields=("method",), column_fields=("encoder",)))
    ) == [
        {"method": "simmim", "task": "detection", "metric": "AP", "vit": "30.0"},
        {"method": "simmim", "task": "linear-probe", "metric": "top1", "vit": "50.0"},
    ]


def test_methods_can_be_the_columns_and_protocols_then_split_rows(record, framed):
    records = [record(), record("mae", 40.0), record("mae", 30.0, protocol={"layer": -1, "pooling": "token"})]
    table = build_comparison(framed(records), Choice(column_fields=("method",)))
    assert rows_by_title(table) == [
        {"task": "linear-probe", "metric": "top1", "protocol": "pooling=mean", "mae": "40.0", "simmim": "50.0"},
        {"task": "linear-probe", "metric": "top1", "protocol": "pooling=token", "mae": "30.0", "simmim": "-"},
    ]


def ablation(record, tasks=("knn", "few-shot")):
    records = [record("simmim", 50.0 + x, varied={"method.x": x}, task=t) for x in (1, 2) for t in tasks]
    return [*records, *(record("mae", 45.0, recipe={"method": {"x": 9}}, task=task) for task in tasks)]


def test_settings_go_with_the_method(record, framed):
    tidy = framed(ablation(record))
    across = rows_by_title(build_comparison(tidy, Choice(row_fields=("task",), column_fields=("method",))))
    assert across == [
        {
            "task": task,
            "metric": "top1",
            "mae, method.x=9": "45.0",
            "simmim, method.x=1": "51.0",
            "simmim, method.x=2": "52.0",
        }
        for task in ("few-shot", "knn")
    ]
    assert rows_by_title(build_comparison(tidy, Choice(row_fields=("task",)))) == across
    assert rows_by_title(build_comparison(tidy, Choice(row_fields=("task",), column_fields=("method.x",)))) == across


def test_a_setting_that_the_method_implies_is_left_out(record, framed):
    tidy = framed([one for one in ablation(record) if one.varied.get("method.x") != 1])
    assert rows_by_title(build_comparison(tidy, Choice(row_fields=("task",), column_fields=("method",)))) == [
        {"task": task, "metric": "top1", "mae": "45.0", "simmim": "52.0"} for task in ("few-shot", "knn")
    ]
    assert [*rows_by_title(build_comparison(tidy))[0]] == ["method", "few-shot: top1", "knn: top1"]


def test_what_makes_a_comparison_unfair_is_always_shown(record, framed):
    records = [record("mae"), record("simmim", recipe_name="other", varied={"pretrain.x": 3})]
    assert [*rows_by_title(build_comparison(framed(records)))[0]] == [
        "method",
        "recipe",
        "pretrain.x",
        "linear-probe: top1",
    ]


def test_settings_without_a_visible_difference_show_their_pretraining(record, framed):
    records = [record(value=v, pretraining=name) for name, v in (("aaaaaaaa", 40.0), ("bbbbbbbb", 60.0))]
    assert rows_by_title(
        build_comparison(framed(records), Choice(row_fields=("task",), column_fields=("method",)))
    ) == [{"task": "linear-probe", "metric": "top1", "simmim, aaaaaa": "40.0", "simmim, bbbbbb": "60.0"}]


def test_titles_tell_the_metric_and_seeds_are_no_contenders(record, framed):
    records = [
        record(method, value + 10 * seed, seed, task=task)
        for task in ("knn", "linear-probe")
        for method, value in (("mae", 40.0), ("simmim", 50.0))
        for seed in (0, 1)
    ]
    one = framed([one for one in records if one.task.name == "knn"])
    table = build_comparison(one, Choice(column_fields=("task", "seed")))
    assert rows_by_title(table) == [
        {"method": "mae", "knn: top1, seed=0": "40.0", "knn: top1, seed=1": "50.0"},
        {"method": "simmim", "knn: top1, seed=0": "50.0", "knn: top1, seed=1": "60.0"},
    ]
    assert [[cell.mark for cell in row] for row in table.rows] == [["", "", ""], ["", "best", "best"]]
    assert "of each column, per seed" in table.remarks[0]
    down = build_comparison(one, Choice(row_fields=("method", "seed"), column_fields=("task",)))
    assert [(cell_text(row[0]), cell_text(row[1]), row[2].mark) for row in down.rows] == [
        ("mae", "0", ""),
        ("mae", "1", ""),
        ("simmim", "0", "best"),
        ("simmim", "1", "best"),
    ]
    assert "per seed" not in build_comparison(one).remarks[0]
    both = build_comparison(framed(records), Choice(row_fields=("method",), column_fields=("task", "seed")))
    assert len(both.columns) == 5
    assert all(": top1, seed=" in column.title for column in both.columns[1:])


def test_one_seed_has_no_contenders(record, framed):
    table = build_comparison(
        framed([record(value=v, seed=s) for s, v in enumerate((1.0, 2.0))]), Choice(column_fields=("seed",))
    )
    assert [cell.mark for row in table.rows for cell in row] == [""] * 5


def test_what_neither_rows_nor_columns_tell_is_remarked(record, framed):
    table = build_comparison(
        framed([record(), record("mae")]), Choice(row_fields=("encoder",), column_fields=("method",))
    )
    assert table.remarks[0].startswith("all: linear-probe: top1; ")
    other_table = build_comparison(
        framed([record(), record("mae")]), Choice(row_fields=("method",), column_fields=("metric",))
    )
    assert other_table.remarks[0].startswith("all: linear-probe; ")
    assert not build_comparison(framed([record(), record("mae")])).remarks[0].startswith("all")


def test_a_setting_of_another_method_does_not_split_the_seeds_of_a_control(record, framed):
    settings = {"set": {"method.x": 1, "pretrain.epochs": 3}}
    control = {"recipe": {"method": {"name": "random-init"}}, "pretraining": "control"}
    seeds = [
        record("random-init", 40.0, 0, recipe_passed=settings, **control),
        record("random-init", 42.0, 1, **control),
        record("simmim", 50.0, recipe_passed=settings, recipe={"method": {"name": "simmim", "x": 1}}),
    ]
    tidy = framed(seeds)
    assert tidy["set"].tolist() == ["", "", "method.x=1"]
    table = build_comparison(tidy, Choice(baseline=Baseline.parse("random-init")))
    row_values = {row["method"]: row["linear-probe: top1"] for row in rows_by_title(table)}
    assert row_values["random-init"].startswith("41.0 ± 1.4 (n=2)")
    assert [cell_text(row[-1]) for row in table.rows] == ["-", "+10.0 (n=1)"]
