"""Paired differences: to a method, to one of its settings, and what is said where neither is clear."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy import stats

from helpers.tables import rows_by_title
from mimbench.errors import InputError
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.tables.command import table_command
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.render.numbers import cell_text
from mimbench.store.record import write_record


def test_differences_to_a_baseline(record, framed):
    records = [record(m, v + s, s) for m, v in (("random-init", 40), ("simmim", 50.5)) for s in (0, 1, 2)]
    records += [record("simmim", 61.0, 7), record("mae", 45.0, 9)]
    table = build_comparison(framed(records), Choice(baseline=Baseline.parse("random-init")))
    assert [row["Δ random-init"] for row in rows_by_title(table)] == ["-", "-", "+10.5 [10.5, 10.5] (n=3)"]
    assert table.columns[2].notes[0].startswith("difference from random-init, paired by seed; [ ]: 95 % interval")
    assert "Student's t" in table.columns[2].notes[0]
    assert table.rows[1][2].notes == ("no seed in common with random-init",)
    with pytest.raises(InputError, match="no record has the baseline 'random'; did you mean 'random-init'"):
        build_comparison(framed(records), Choice(baseline=Baseline.parse("random")))


def test_the_baseline_is_the_one_with_the_same_encoder_and_settings(record, framed):
    def sized(method, value, depth, **changes):
        options = {"encoder": {"embed_dim": 64, "depth": depth, "patch_size": 4}}
        return record(method, value, recipe=options, pretraining=f"{method}{depth}{changes}", **changes)

    records = [sized("random-init", 10.0, 2), sized("random-init", 20.0, 4), sized("simmim", 30.0, 4)]
    table = build_comparison(framed([*records, sized("mae", 30.0, 8)]), Choice(baseline=Baseline.parse("random-init")))
    differences = {(row["method"], row["encoder"]): row["Δ random-init"] for row in rows_by_title(table)}
    assert differences["simmim", "vit 64x4/4"] == "+10.0 (n=1)"
    assert differences["mae", "vit 64x8/4"] == "-"
    vague = [record("mae", 1.0, varied={"method.x": x}, pretraining=str(x)) for x in (1, 2)]
    table = build_comparison(framed([*vague, record()]), Choice(baseline=Baseline.parse("mae")))
    assert table.rows[-1][-1].notes == (
        "mae has 2 settings to compare with; choose one: --baseline mae:method.x=1 or mae:method.x=2",
    )


def ablation(record, values, path="method.x", method="simmim"):
    """{setting: values over seeds}; None is the recipe's own, 6."""
    return [
        record(
            method,
            value,
            seed,
            varied={} if setting is None else {path: setting},
            recipe={"method": {"x": 6 if setting is None else setting}},
        )
        for setting, values_of_seeds in values.items()
        for seed, value in enumerate(values_of_seeds)
    ]


VALUES = {3: (50.0, 51.0, 52.0), None: (60.0, 64.0, 59.0), 8: (55.0, 50.0, 57.0)}


def test_a_setting_can_be_the_baseline(record, framed):
    records = [*ablation(record, VALUES), *(record("mae", 40.0 + seed, seed) for seed in range(3))]
    others = {("simmim", "6"): VALUES[None], ("simmim", "8"): VALUES[8], ("mae", "-"): (40, 41, 42)}
    for text in ("simmim:method.x=3", "simmim: method.x = 3"):
        table = build_comparison(framed(records), Choice(baseline=Baseline.parse(text)))
        cells = {(row["method"], row["method.x"]): row[f"Δ {text}"] for row in rows_by_title(table)}
        for key, values in others.items():
            differences = np.subtract(values, VALUES[3])
            half = stats.t.ppf(0.975, 2) * stats.sem(differences)
            low, high = differences.mean() - half, differences.mean() + half
            assert cells[key] == f"{differences.mean():+.1f} [{low:.1f}, {high:.1f}] (n=3)".replace("-", "−")
        assert cells["simmim", "3"] == "-"
        assert table.columns[-1].notes[0].startswith(f"difference from {text}, paired by seed; ")
    only = build_comparison(framed(records), Choice(baseline=Baseline.parse("simmim:method.x=3"), methods=("simmim",)))
    assert [row["method"] for row in rows_by_title(only)] == ["simmim"] * 3
    fielded = build_comparison(framed(records), Choice(baseline=Baseline.parse("simmim:varied=method.x=3")))
    assert [cell_text(cell) for cell in fielded.rows[0]][-1] == [cell_text(cell) for cell in table.rows[0]][-1]


def test_several_settings_choose_together(record, framed):
    records = [
        record("simmim", 10.0 * x + len(y), varied={"method.x": x, "method.y": y})
        for x in (1, 2)
        for y in ([1, 2], "b")
    ]
    table = build_comparison(framed(records), Choice(baseline=Baseline.parse("simmim:method.x=2,method.y=[1, 2]")))
    assert [cell_text(row[-1]) for row in table.rows] == ["−10.0 (n=1)", "−11.0 (n=1)", "-", "−1.0 (n=1)"]
    with pytest.raises(InputError, match=r"no record of simmim has method\.y=c with method\.x=2; there is \[1, 2\], b"):
        build_comparison(framed(records), Choice(baseline=Baseline.parse("simmim:method.x=2,method.y=c")))
    open_ = build_comparison(framed(records), Choice(baseline=Baseline.parse("simmim:method.x=2")))
    cells = {(row["method.x"], row["method.y"]): row["Δ simmim:method.x=2"] for row in rows_by_title(open_)}
    assert cells == {("1", "[1, 2]"): "−10.0 (n=1)", ("1", "b"): "−10.0 (n=1)", ("2", "[1, 2]"): "-", ("2", "b"): "-"}


def test_without_a_setting_it_is_the_one_that_nothing_was_varied_for(record, framed):
    records = [*ablation(record, VALUES), *(record("mae", 40.0 + seed, seed) for seed in range(3))]
    plain = build_comparison(framed(records), Choice(baseline=Baseline.parse("simmim")))
    chosen = build_comparison(framed(records), Choice(baseline=Baseline.parse("simmim:method.x=6")))
    assert [cell_text(row[-1]) for row in plain.rows] == [cell_text(row[-1]) for row in chosen.rows]
    assert [row["Δ simmim"] == "-" for row in rows_by_title(plain)] == [False, False, True, False]
    assert plain.columns[-1].notes[0].startswith("difference from simmim (method.x=6), paired by seed; ")


def test_where_several_could_be_meant_the_message_names_what_to_write(record, framed):
    varied = {0: VALUES[3], 8: VALUES[8]}
    table = build_comparison(
        framed([*ablation(record, varied), record("mae")]), Choice(baseline=Baseline.parse("simmim"))
    )
    assert [row["Δ simmim"] for row in rows_by_title(table)] == ["-", "-", "-"]
    assert table.rows[0][-1].notes == (
        "simmim has 2 settings to compare with; choose one: --baseline simmim:method.x=0 or simmim:method.x=8",
    )


def test_a_candidate_without_a_setting_is_not_offered_as_a_choice(record, framed):
    changed = {"recipe_passed": {"set": {"encoder.x": 1}}, "pretraining": "changed"}
    table = build_comparison(
        framed([record("mae"), record("simmim"), record("simmim", 51.0, **changed)]),
        Choice(baseline=Baseline.parse("simmim")),
    )
    assert table.rows[0][-1].notes == (
        "simmim has 2 settings to compare with; choose one: --baseline simmim:set=encoder.x=1",
    )
    chosen = build_comparison(
        framed([record("mae"), record("simmim"), record("simmim", 51.0, **changed)]),
        Choice(baseline=Baseline.parse("simmim:set=encoder.x=1")),
    )
    assert cell_text(chosen.rows[0][-1]) == "−1.0 (n=1)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simim:method.x=3", "no record has the baseline 'simim'; did you mean 'simmim'"),
        ("simmim:", "--baseline 'simmim:': '' is not path=value, as in simmim:method.mask_ratio=0.6"),
        ("simmim:method.x", "'method.x' is not path=value"),
        (
            "simmim:method.xx=3",
            "--baseline simmim:method.xx=3: simmim has no setting 'method.xx'; did you mean 'method.x'",
        ),
        ("simmim:value=3", "simmim has no setting 'value'"),
        ("simmim:method.x=4", "no record of simmim has method.x=4; there is 3, 6, 8"),
        ("mae:method.x=4", "mae has no setting 'method.x'; none of its settings was varied"),
    ],
)
def test_an_unknown_setting_is_refused_in_one_line(text, message, record, framed):
    with pytest.raises(InputError) as error:
        build_comparison(framed([*ablation(record, VALUES), record("mae")]), Choice(baseline=Baseline.parse(text)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_setting_that_was_never_varied_is_read_from_the_recipes(results_of, record):
    records = [
        record("simmim", 50.0, recipe={"method": {"deep": {"y": True}}}, pretraining="one"),
        record("simmim", 60.0, recipe={"method": {"deep": {"y": False}}}, pretraining="two"),
    ]
    folder = results_of(records)
    choice = Choice(baseline=Baseline.parse("simmim:method.deep.y=true"))
    text = table_command(choice, results=folder, format="csv", layout=None)
    assert [row["linear-probe: top1 Δ simmim:method.deep.y=true"] for row in csv.DictReader(io.StringIO(text))] == [
        "10.0",
        "",
    ]


@pytest.fixture
def results_of(tmp_path):
    def write(records):
        for one in records:
            write_record(tmp_path / "records" / f"{one.id}.json", one)
        return tmp_path

    return write
