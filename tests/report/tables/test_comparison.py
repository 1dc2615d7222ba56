"""Comparison tables: protocols and settings kept apart, seeds summed up with n, marks that say what they show."""

from __future__ import annotations

import csv
import io
import math
import statistics

import pytest

from helpers.preset_records import preset_record
from helpers.tables import rows_by_title
from mimbench.errors import InputError
from mimbench.report.plots.kinds import figure
from mimbench.report.plots.source import Options, Source
from mimbench.report.records.frame import build_frame
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.layouts import read_layout
from mimbench.report.tables.papers import build_layout_table
from mimbench.report.tables.render import render
from mimbench.report.tables.render.numbers import cell_text


def test_seeds_are_summed_up_with_their_number(record, framed):
    values = [50.0, 54.0, 52.5]
    table = build_comparison(framed([record(value=v, seed=i) for i, v in enumerate(values)]))
    deviation = statistics.stdev(values)
    assert rows_by_title(table) == [{"method": "simmim", "linear-probe: top1": f"52.2 ± {deviation:.1f} (n=3)"}]
    assert "std over n seeds (sample standard deviation)" in table.remarks[0]
    error = build_comparison(framed([record(value=v, seed=i) for i, v in enumerate(values)]), Choice(spread="se"))
    assert rows_by_title(error)[0]["linear-probe: top1"] == f"52.2 ± {deviation / 3**0.5:.1f} (n=3)"
    assert "±: standard error of the mean (std / √n)" in error.remarks[0]


def test_one_seed_has_no_deviation(record, framed):
    assert rows_by_title(build_comparison(framed([record(), record("random-init", 41.26)]))) == [
        {"method": "random-init", "linear-probe: top1": "41.3"},
        {"method": "simmim", "linear-probe: top1": "50.0"},
    ]


def test_protocols_never_share_a_column_and_say_how_they_differ(record, framed):
    other = record(value=60.0, protocol={"layer": -1, "pooling": "token"})
    table = build_comparison(framed([record(), other]))
    assert rows_by_title(table) == [
        {
            "method": "simmim",
            "linear-probe: top1 (pooling=mean)": "50.0",
            "linear-probe: top1 (pooling=token)": "60.0",
        }
    ]
    assert not any(cell.mark for row in table.rows for cell in row)


def test_named_protocols_are_called_by_their_names(record, framed):
    def under(name, **options):
        recipe = {"task": {"protocol": name}}
        return record(protocol={"protocol": name, **options}, recipe=recipe)

    table = build_comparison(framed([under("mae", pooling="token"), under("simmim", pooling="mean")]))
    assert list(rows_by_title(table)[0]) == ["method", "linear-probe: top1 (mae)", "linear-probe: top1 (simmim)"]
    assert table.notes == (
        "linear-probe protocol mae: pooling=token protocol=mae",
        "linear-probe protocol simmim: pooling=mean protocol=simmim",
    )
    single = build_comparison(framed([under("mae", pooling="token")]))
    assert list(rows_by_title(single)[0]) == ["method", "linear-probe: top1"]
    assert single.notes == ("linear-probe protocol mae",)


def test_a_protocol_that_was_departed_from_is_another(record, framed):
    recipe = {"task": {"protocol": "mae"}}
    plain = record(recipe=recipe, protocol={"epochs": 90})
    short = record(recipe=recipe, protocol={"epochs": 3}, recipe_passed={"set": {"task.epochs": 3}})
    assert {*rows_by_title(build_comparison(framed([plain, short])))[0]} == {
        "method",
        "linear-probe: top1 (mae)",
        "linear-probe: top1 (mae, epochs=3)",
    }


def test_a_departure_is_shown_once_whatever_set_it(record, framed):
    recipes = {"recipe": {"task": {"protocol": "mae"}}, "recipe_passed": {"set": {"task.epochs": 3, "task.workers": 2}}}
    noted = record(departures={"epochs": 3, "train.betas": [0.9, 0.95]}, **recipes)
    assert noted.as_json()["departures"] == {"epochs": 3, "train.betas": [0.9, 0.95]}
    table = build_comparison(framed([noted]))
    assert table.notes == ("linear-probe protocol mae, epochs=3, train.betas=[0.9, 0.95]",)
    assert build_comparison(framed([record(departures={}, **recipes)])).notes == ("linear-probe protocol mae",)
    old = record(**recipes).as_json()
    del old["departures"]  # records made before departures were noted
    assert build_comparison(build_frame([(None, old)])).notes == ("linear-probe protocol mae, epochs=3, workers=2",)
    assert build_comparison(framed([record(departures={"epochs": 3})])).notes == ()


def test_protocols_of_one_name_show_what_differs(record, framed):
    recipe = {"task": {"protocol": "mae"}}
    records = [record(recipe=recipe, departures={"layer": 2}, protocol={"size": size}) for size in (28, 32)]
    table = build_comparison(framed(records))
    assert table.notes == (
        "linear-probe protocol mae, layer=2, size=28",
        "linear-probe protocol mae, layer=2, size=32",
    )


def test_protocols_of_different_content_are_different(record, framed):
    records = [record(protocol={"dataset": {"content": content}}, value=v) for content, v in (("a", 1.0), ("b", 2.0))]
    assert rows_by_title(build_comparison(framed(records))) == [
        {
            "method": "simmim",
            "linear-probe: top1 (dataset.content=a)": "1.0",
            "linear-probe: top1 (dataset.content=b)": "2.0",
        }
    ]


def test_protocols_of_different_options_of_the_data_show_these(record, framed):
    """An option says more than the content that it makes; the folder is another one on each machine."""
    records = [
        record(
            protocol={"dataset": {"content": content}},
            recipe={"task": {"data": {"share": share, "root": f"/{content}"}}},
            recipe_passed={"set": {"task.data.share": share, "task.data.root": f"/{content}"}},
            varied={"task.data.share": share, "task.data.root": f"/{content}"},
        )
        for content, share in (("a", 0.95), ("b", 0.5))
    ]
    assert list(rows_by_title(build_comparison(framed(records)))[0])[1:] == [
        "linear-probe: top1 (data.share=0.5)",
        "linear-probe: top1 (data.share=0.95)",
    ]


def test_two_versions_of_a_dataset_leave_protocols_their_names(record, framed):
    """Their contents tell them apart, beside a name or alone; whatever else differs is in the footnote."""

    def under(name, content, mean, task):
        protocol = {"protocol": name, "task": task, "dataset": {"content": content}, "input": {"mean": [mean] * 3}}
        return record(recipe={"task": {"protocol": name}}, protocol=protocol, task=task)

    contents = (("8c08adbb", 0.1307), ("77777777", 0.1399))
    few = [under(None, content, mean, "few-shot") for content, mean in contents]
    probe = [under("cached-lbfgs", content, 0.5, "linear-probe") for content, _ in contents]
    other = under("mae", "8c08adbb", 0.5, "linear-probe")
    table = build_comparison(framed([*few, *probe, other]))
    assert sorted(rows_by_title(table)[0])[:-1] == [
        "few-shot: top1 (dataset.content=777777)",
        "few-shot: top1 (dataset.content=8c08ad)",
        "linear-probe: top1 (cached-lbfgs, dataset.content=777777)",
        "linear-probe: top1 (cached-lbfgs, dataset.content=8c08ad)",
        "linear-probe: top1 (mae)",
    ]
    assert {
        "few-shot protocol dataset.content=777777: input.mean=[0.1399, 0.1399, 0.1399]",
        "linear-probe protocol cached-lbfgs, dataset.content=777777: protocol=cached-lbfgs dataset.content=777777",
    } < set(table.notes)
    alone = build_comparison(framed(probe))
    assert "linear-probe protocol cached-lbfgs, dataset.content=777777" in alone.notes


def test_protocols_without_a_short_difference_are_numbered(record, framed):
    long = [record(protocol={"p": "x" * 40 + end}, value=v) for end, v in (("a", 1.0), ("b", 2.0))]
    titles = list(rows_by_title(build_comparison(framed(long)))[0])[1:]
    assert titles == ["linear-probe: top1 (protocol 1)", "linear-probe: top1 (protocol 2)"]


def test_the_primary_metric_is_shown_and_others_by_name(record, framed):
    both = framed([record(task="detection", metrics={"AP": 40.0, "AP50": 70.0, "AP75": 30.0})])
    assert rows_by_title(build_comparison(both)) == [
        {"method": "simmim", "detection: AP": "40.0", "detection: AP50": "70.0"}
    ]
    assert rows_by_title(build_comparison(both, Choice(metrics=("AP75",)))) == [
        {"method": "simmim", "detection: AP75": "30.0"}
    ]
    with pytest.raises(InputError, match=r"no record has a metric 'AP57'; did you mean .*'AP50'"):
        build_comparison(both, Choice(metrics=("AP57",)))


def test_methods_and_tasks_by_choice(record, framed):
    tidy = framed([record(), record("mae"), record("mae", task="knn")])
    assert rows_by_title(build_comparison(tidy, Choice(methods=("mae",), tasks=("knn",)))) == [
        {"method": "mae", "knn: top1": "50.0"}
    ]
    with pytest.raises(InputError, match="no record has a method 'simim'; did you mean 'simmim'"):
        build_comparison(tidy, Choice(methods=("simim",)))
    with pytest.raises(InputError, match="no record has a task 'knn' and all else"):
        build_comparison(tidy, Choice(methods=("simmim",), tasks=("knn",)))
    with pytest.raises(InputError, match="unknown field 'mehtod' for rows or columns; did you mean 'method'"):
        build_comparison(tidy, Choice(row_fields=("mehtod",)))


def test_a_cell_that_was_not_run_is_a_dash(record, framed):
    probe, detection = record(), record("mae", task="detection", metric="AP")
    assert rows_by_title(build_comparison(framed([probe, detection]))) == [
        {"method": "mae", "detection: AP": "50.0", "linear-probe: top1": "-"},
        {"method": "simmim", "detection: AP": "-", "linear-probe: top1": "50.0"},
    ]


def test_the_best_and_all_that_are_not_shown_to_be_worse_are_marked(record, framed):
    def seeds(method, *values):
        return [record(method, value, seed) for seed, value in enumerate(values)]

    clear = build_comparison(framed([*seeds("a", 50, 50.2, 50.1), *seeds("b", 60, 60.2, 60), *seeds("c", 5, 5.5, 6)]))
    assert [row[1].mark for row in clear.rows] == ["", "best", ""]
    close = build_comparison(framed([*seeds("a", 50, 54, 52), *seeds("b", 53, 55, 57), *seeds("c", 5, 5.5, 6)]))
    assert [row[1].mark for row in close.rows] == ["similar", "best", ""]
    assert close.notes == clear.notes == ()
    assert close.remarks[0].startswith(
        "{best} of each column; {similar}: not shown to be worse than the best (paired t over seeds, Holm, 0.05)"
    )
    single = build_comparison(framed([record("a", 1.0), record("b", 99.0)]))
    assert [row[1].mark for row in single.rows] == ["", "best"]
    assert single.notes == ()
    assert "similar" not in single.remarks[0]


def test_controls_come_first_and_have_no_marks_and_no_ranks(record, framed):
    records = [
        record(method, value + seed, seed)
        for method, value in (("mae", 50), ("random-init", 30), ("simmim", 40), ("supervised", 90))
        for seed in (0, 1)
    ]
    table = build_comparison(framed(records), Choice(ranks=True))
    assert [row[0].content for row in table.rows] == ["random-init", "supervised", "mae", "simmim"]
    assert table.controls == 2
    assert [row[1].mark for row in table.rows] == ["", "", "best", ""]
    assert [row[2].notes for row in table.rows[:2]] == [("no rank: a control",)] * 2
    assert "controls: above, not marked" in table.remarks[0]
    lines = render(table, "text").splitlines()
    assert lines[1] == lines[4]  # a rule below the controls
    assert render(table, "html").count("<tbody>") == 2
    assert render(table, "latex").count(r"\midrule") == 2
    alone = build_comparison(framed([record("random-init", 1.0), record("supervised", 2.0)]))
    assert (alone.controls, [row[1].mark for row in alone.rows]) == (0, ["", "best"])
    assert "controls" not in alone.remarks[0]


def test_nothing_is_best_where_all_are_the_same(record, framed):
    table = build_comparison(framed([record(method, 0.0) for method in "abc"]))
    assert [row[1].mark for row in table.rows] == ["", "", ""]
    assert "best" not in table.remarks[0]
    tied = build_comparison(framed([record("a", 1.0), record("b", 1.0), record("c", 0.0)]))
    assert [row[1].mark for row in tied.rows] == ["best", "best", ""]


def test_less_is_better_where_the_metric_says_so(record, framed):
    records = [record(m, v, metric="ECE", unit="fraction", higher=False) for m, v in (("a", 0.5), ("b", 0.1234))]
    table = build_comparison(framed(records))
    assert [(cell_text(row[1]), row[1].mark) for row in table.rows] == [("0.500 (n=1)", ""), ("0.123 (n=1)", "best")]
    assert table.columns[1].title == "linear-probe: ECE [fraction]"


def test_ranks_over_tasks(record, framed):
    records = [
        record(m, v + s, s, task=task)
        for task, gap in (("knn", 10), ("linear-probe", 1))
        for m, v in (("mae", 40), ("simmim", 40 + gap))
        for s in (0, 1, 2)
    ]
    table = build_comparison(framed([*records, record("beit")]), Choice(ranks=True))
    assert [row["mean rank"] for row in rows_by_title(table)] == ["-", "2.0 [2.0, 2.0]", "1.0 [1.0, 1.0]"]
    assert table.columns[-1].notes == (
        "mean rank over 2 primary metrics; [ ]: range of mean ranks that paired t tests over seeds leave open "
        "(Holm over the rivals, 0.05; n=3): of two that no test distinguishes, either may be the better one",
    )
    more = build_comparison(framed([*records, record("mae", 43, 3, task="knn")]), Choice(ranks=True))
    assert "(Holm over the rivals, 0.05; n=3 to 4)" in more.columns[-1].notes[0]
    single = build_comparison(framed([record("a", 1.0), record("b", 2.0)]), Choice(ranks=True))
    assert single.columns[-1].notes == ("mean rank over 1 primary metric; no interval: a score has one seed",)
    with pytest.raises(InputError, match="--rank ranks rows over columns of tasks"):
        build_comparison(framed(records), Choice(ranks=True, column_fields=("method",)))


def test_csv_has_the_numbers_in_columns_of_their_own(record, framed):
    records = [record(m, v + s, s) for m, v in (("a", 40), ("b", 50.5)) for s in (0, 1)]
    table = build_comparison(framed(records), Choice(baseline=Baseline.parse("a")))
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert float(rows[1].pop("linear-probe: top1 sd")) == pytest.approx(statistics.stdev([50.5, 51.5]))
    assert rows[1] == {
        "method": "b",
        "linear-probe: top1": "51.0",
        "linear-probe: top1 n": "2",
        "linear-probe: top1 Δ a": "10.5",
        "linear-probe: top1 Δ a low": "10.5",
        "linear-probe: top1 Δ a high": "10.5",
        "linear-probe: top1 Δ a n": "2",
    }


def test_nothing_makes_no_table(framed):
    with pytest.raises(InputError, match="no records"):
        build_comparison(framed([]))


def at_epoch(record, epoch: int, value: float, method: str = "simmim", **more):
    """The end of a schedule of 26 epochs, or the weights of one before."""
    plain = record(method, value, **more)
    cost = plain.checkpoint.cost.model_copy(update={"steps": epoch})
    changes = more | {"checkpoint": plain.checkpoint.model_copy(update={"cost": cost})}
    if epoch == 26:
        return record(method, value, recipe={"pretrain": {"epochs": 26}}, **changes)
    early = {"recipe": {"pretrain": {"epochs": 26, "at_epoch": epoch}}, "varied": {"pretrain.at_epoch": epoch}}
    return record(method, value, **early, **changes)


def test_earlier_epochs_are_left_out_and_counted_unless_the_epoch_is_asked_for(record, framed):
    records = [at_epoch(record, epoch, value) for epoch, value in ((0, 99.0), (5, 55.0), (26, 60.0))]
    tidy = framed([*records, record("random-init", 40.0)])
    table = build_comparison(tidy)
    assert [tuple(row.values()) for row in rows_by_title(table)] == [("random-init", "40.0"), ("simmim", "60.0")]
    assert table.remarks[-1] == ("not shown: 2 records of earlier epochs of these pretrainings")
    more = framed([*records, record("random-init", 40.0), record("mae", 50.0)])
    shown = build_comparison(more, Choice(row_fields=("method", "pretrain.at_epoch")))
    assert [row["pretrain.at_epoch"] for row in rows_by_title(shown)] == ["-", "-", "0", "5", "26"]
    assert [row[-1].mark for row in shown.rows] == ["", "", "", "", "best"]
    assert "of each column, without earlier epochs" in shown.remarks[0]
    assert not any("not shown" in remark for remark in shown.remarks)
    columns = rows_by_title(
        build_comparison(tidy, Choice(row_fields=("method", "task", "metric"), column_fields=("at_epoch",)))
    )
    assert set(columns[1]) - {"method", "task", "metric"} == {"-", "at_epoch=0", "at_epoch=5", "at_epoch=26"}


def test_earlier_steps_are_called_steps(record, framed):
    training = {"epochs": None, "steps": 90}
    early = {"recipe": {"pretrain": {**training, "at_step": 30}}, "varied": {"pretrain.at_step": 30}}
    ends = [record(method, value, recipe={"pretrain": training}) for method, value in (("simmim", 60.0), ("mae", 50.0))]
    records = [record("simmim", 55.0, **early), *ends]
    shown = build_comparison(framed(records), Choice(row_fields=("method", "pretrain.at_step")))
    assert "of each column, without earlier steps" in shown.remarks[0]


def test_earlier_epochs_are_shown_if_there_is_nothing_else(record, framed):
    tidy = framed([at_epoch(record, 5, 55.0), at_epoch(record, 10, 58.0), record("random-init", 40.0)])
    table = build_comparison(tidy)
    assert [row["pretrain.at_epoch"] for row in rows_by_title(table)] == ["-", "5", "10"]
    assert not any("not shown" in remark for remark in table.remarks)
    both = build_comparison(framed([at_epoch(record, 5, 55.0), at_epoch(record, 10, 58.0)]))
    assert [row[-1].mark for row in both.rows] == ["", "best"]
    assert both.remarks == ("{best} of each column; in percent",)


def test_one_record_is_not_counted_as_several(record, framed):
    table = build_comparison(framed([at_epoch(record, 5, 55.0), at_epoch(record, 26, 60.0)]))
    assert table.remarks[-1] == ("not shown: 1 record of earlier epochs of these pretrainings")


def test_if_one_task_has_only_earlier_epochs_the_remark_says_what_is_left_out(record, framed):
    early = [at_epoch(record, epoch, 50.0 + epoch, task="knn") for epoch in (5, 10)]
    ends = [at_epoch(record, epoch, 70.0 - epoch) for epoch in (5, 26)] + [record("mae", 40.0)]
    table = build_comparison(framed([*early, *ends]), Choice(epochs=True))
    assert [[cell.mark for cell in row[2:]] for row in table.rows] == [
        ["", ""],
        ["", ""],
        ["best", ""],
        ["", "best"],
    ]
    assert "of each column, without earlier epochs if there is a last one" in table.remarks[0]


def test_earlier_epochs_have_no_rank_if_there_is_a_last_one(record, framed):
    records = [at_epoch(record, epoch, value) for epoch, value in ((0, 99.0), (5, 55.0), (26, 60.0))]
    tidy = framed([*records, record("random-init", 40.0), record("mae", 30.0, task="knn")])
    choice = Choice(row_fields=("method", "pretrain.at_epoch"), tasks=("linear-probe",), ranks=True)
    table = build_comparison(tidy, choice)
    assert [(row["pretrain.at_epoch"], row["mean rank"]) for row in rows_by_title(table)] == [
        *(("-", "-"), ("0", "-"), ("5", "-"), ("26", "1.0"))
    ]
    assert [row[-1].notes for row in table.rows[1:3]] == [("no rank: an earlier epoch of a pretraining",)] * 2
    alone = build_comparison(framed(records[:2]), Choice(ranks=True))
    assert [row["mean rank"] for row in rows_by_title(alone)] == ["1.0", "2.0"]
    across = Choice(column_fields=("task", "metric", "at_epoch"), ranks=True)  # the end is a column, and so is none
    assert {row[-1].notes for row in build_comparison(tidy, across).rows} == {
        ("no rank: a control",),
        ("no rank: a task is missing",),
    }


@pytest.mark.parametrize("value", [1e308, -5.0, 100.5, math.nan, math.inf])
def test_a_value_outside_of_its_range_is_never_best_and_has_a_note(record, framed, value):
    shown = "not a number" if math.isnan(value) else f"{value:g}"
    problem = f"top1 is {shown}, outside of its range 0 to 100; see `mimbench verify`"
    for higher in (True, False):
        broken = [record("mae", value, 0, higher=higher), record("mae", 50.0, 1, higher=higher)]
        sound = [record(name, 60.0 + seed, seed, higher=higher) for name in ("beit", "simmim") for seed in (0, 1)]
        sound[1] = record("beit", 40.0, 1, higher=higher)
        choice = Choice(baseline=Baseline.parse("beit"), ranks=True)
        table = build_comparison(framed([*broken, *sound]), choice)
        cells = {cell_text(row[0]): row for row in table.rows}
        assert cells["mae"][1].mark == ""
        assert {cells["beit"][1].mark, cells["simmim"][1].mark} == {"best", "similar"}
        assert cells["mae"][1].notes == (problem,)
        assert len(cell_text(cells["mae"][1])) < 12
        assert cells["mae"][2].notes == (problem,)
        assert cells["mae"][3].notes == (f"no rank: {problem}",)
        assert [cell_text(row[3]).split()[0] for name, row in cells.items() if name != "mae"] != ["-", "-"]
    alone = build_comparison(framed([record("mae", value)]), Choice())
    assert alone.rows[0][1].notes == (problem,)


def test_a_value_at_the_edge_of_its_range_is_sound(record, framed):
    table = build_comparison(framed([record("mae", 100.0 + 1e-13), record("beit", 0.0)]), Choice())
    assert [row[1].mark for row in table.rows] == ["", "best"]


def test_plots_and_layouts_refuse_a_value_outside_of_its_range(record, framed):
    with pytest.raises(InputError, match=r"^record mae-.*: top1 is 1e\+308, outside of its range 0 to 100"):
        figure("bars", Source.from_records([record("mae", 1e308), record("beit", 50.0)]), Options())
    records = [preset_record(record, value=value, seed=seed) for seed, value in enumerate((1e308, 83.0))]
    cells = [row[-1] for row in build_layout_table(read_layout("simmim-loss"), framed(records)).rows]
    assert cells[0].notes == ("top1 is 1e+308, outside of its range 0 to 100; see `mimbench verify`",)
