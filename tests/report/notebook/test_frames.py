"""Records in a notebook: the same numbers as the printed table."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

import mimbench
from mimbench.errors import InputError
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.names import NAMES
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.render import render
from mimbench.store.record import write_record

REFERENCE = Path(__file__).parents[3] / "results" / "reference"


@pytest.fixture(scope="module")
def reference():
    return mimbench.load_records(REFERENCE)


def trained(record, method, value, seed, epoch=20, **changes):
    """A record whose weights were taken after `epoch` of 20 epochs."""
    plain = record(method)
    cost = plain.checkpoint.cost.model_copy(update={"steps": 10 * epoch})
    at = {} if epoch == 20 else {"at_epoch": epoch}
    recipe = {"pretrain": {"epochs": 20, **at}, **changes.pop("recipe", {})}
    varied = {**changes.pop("varied", {}), **({"pretrain.at_epoch": epoch} if at else {})}
    card = plain.checkpoint.model_copy(update={"cost": cost})
    return record(method, value, seed, checkpoint=card, recipe=recipe, varied=varied, **changes)


def test_the_obvious_pivot_gives_the_means_of_the_table(reference):
    pivot = reference[reference["primary"]].pivot_table(index=["method", "setting"], columns="task", values="value")
    means = mimbench.summary(reference, metrics=["AP", "top1_5shot", "top1_k20", "top1"], wide=True)
    assert len(pivot) == len(means)
    in_pivot = sorted(round(value, 6) for value in pivot.to_numpy().ravel() if value == value)
    in_table = sorted(round(value, 6) for value in means.to_numpy().ravel() if value == value)
    assert in_pivot == in_table


def test_the_summary_has_the_numbers_that_the_table_prints(reference):
    rows = mimbench.summary(reference)
    comparison, ablations = str(mimbench.table(REFERENCE)).split("Ablations")
    printed = re.findall(r"(\d+\.\d) ± (\d+\.\d)", comparison)
    main = ("58.6", "2.5")  # of SimMIM, which both tables show
    printed += [pair for pair in re.findall(r"(\d+\.\d) ± (\d+\.\d)", ablations) if pair != main]
    spread = rows[rows["n"] > 1]
    assert sorted(printed) == sorted((f"{row.mean:.1f}", f"{row.sd:.1f}") for row in spread.itertuples(index=False))
    half = (rows["high"] - rows["low"]) / 2
    at_three = rows["n"] == 3
    assert half[at_three].to_numpy() == pytest.approx((4.302653 / 3**0.5 * rows["sd"][at_three]).to_numpy(), rel=1e-5)
    assert rows.loc[rows["n"] == 1, ["sd", "low", "high"]].isna().all(axis=None)


def test_a_wide_summary_has_the_order_of_the_table(reference):
    wide = mimbench.summary(reference, wide=True)
    assert wide.columns.tolist()[0] == ("detection", "AP")
    assert wide.index.get_level_values("method").tolist()[:3] == ["autoencoder", "random-init", "supervised"]
    by_method = mimbench.summary(reference, tasks=["knn"], columns=["method"], rows=["task"], wide=True)
    assert by_method.loc[("knn", "top1_k20"), "mae"].item() == pytest.approx(wide[("knn", "top1_k20")].xs("mae").item())


def test_two_protocols_of_a_task_are_two_columns(framed, record):
    tidy = framed([record(value=50), record(value=60, protocol={"layer": 1})])
    assert mimbench.summary(tidy, wide=True).shape == (1, 2)
    assert sorted(mimbench.summary(tidy)["mean"]) == [50, 60]


def test_earlier_epochs_are_left_out_unless_nothing_else_is_there(record, tmp_path):
    ours = [trained(record, "mae", 40 + epoch, 0, epoch) for epoch in (5, 10, 20)]
    for one in (*ours, trained(record, "beit", 30, 0, 5)):
        write_record(tmp_path / "records" / f"{one.id}.json", one)
    last = mimbench.load_records(tmp_path)
    assert last[["method", "at_epoch", "final", "setting"]].values.tolist() == [
        ["beit", 5, False, "epoch 5"],
        ["mae", 20, True, ""],
    ]
    every = mimbench.load_records(tmp_path, earlier_epochs=True)
    assert sorted(every.loc[every["method"] == "mae", "setting"]) == ["", "epoch 10", "epoch 5"]


def test_a_setting_is_never_missing_and_separates_all_that_differs(framed, record):
    def one(method, value, seed, ratio, pretraining, **changes):
        changes = {"recipe": {"method": {"mask_ratio": ratio}}, "varied": {"method.mask_ratio": ratio}, **changes}
        return trained(record, method, value, seed, pretraining=pretraining, **changes)

    tidy = framed(
        [
            one("simmim", 50, 0, 0.3, "a" * 16),
            one("simmim", 60, 0, 0.6, "b" * 16),
            one("simmim", 62, 1, 0.6, "b" * 16, varied={}),  # the same pretraining by another command
            one("simmim", 70, 2, 0.6, "c" * 16),  # another recipe file under the same name
            trained(record, "mae", 55, 0),
        ]
    )
    assert tidy["setting"].tolist() == [
        "method.mask_ratio=0.3",
        "method.mask_ratio=0.6, pretraining=bbbbbb",
        "method.mask_ratio=0.6, pretraining=bbbbbb",
        "method.mask_ratio=0.6, pretraining=cccccc",
        "",
    ]


def test_times_and_bytes_have_types(framed, record):
    written = framed(
        [
            record(provenance={"time": "2026-11-24T10:54:14+00:00"}),
            record("mae", provenance={"time": "yesterday"}),
            record("beit", provenance={}),
        ]
    )
    assert written["time"][0] == pd.Timestamp("2026-11-24 10:54:14", tz="UTC")
    assert written["time"].isna().tolist() == [False, True, True]
    assert str(written["memory"].dtype) == "Int64"
    assert written["final"].tolist() == [True, True, True]


def test_a_table_prints_as_text_and_shows_as_html(framed, record):
    tidy = framed([record("mae", 50 + seed, seed) for seed in range(3)] + [record("beit", 40, 0)])
    shown = mimbench.table(tidy)
    assert str(shown) == render(build_comparison(tidy, Choice(), NAMES), "text")
    assert shown._repr_html_() == shown.render("html")
    assert shown._repr_html_().startswith("<style>")
    assert "\\begin{tabular}" in shown._repr_latex_()
    assert "Δ MAE" in str(mimbench.table(tidy, baseline="mae"))
    with pytest.raises(InputError, match="no record has a method 'maee'"):
        mimbench.table(tidy, methods=["maee"])
    with pytest.raises(InputError, match="unknown table format"):
        shown.render("docx")


def test_curves_have_one_row_per_point(record, tmp_path):
    plain = record("mae")
    card = plain.checkpoint.model_copy(update={"loss": [0.5, 0.25]})
    one = record("mae", curves={"top1_by_layer": [10.0, 20.0, 30.0]}, checkpoint=card)
    write_record(tmp_path / "records" / f"{one.id}.json", one)
    curves = mimbench.curves(tmp_path)
    assert curves[["curve", "index", "value"]].values.tolist() == [
        ["pretraining loss", 0, 0.5],
        ["pretraining loss", 1, 0.25],
        ["top1_by_layer", 0, 10.0],
        ["top1_by_layer", 1, 20.0],
        ["top1_by_layer", 2, 30.0],
    ]
    assert set(curves["id"]) == {one.id}


def test_a_baseline_may_be_a_setting_of_a_method(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # heads of a narrow table go on in the next line
    printed = str(mimbench.table(REFERENCE, tasks=["linear-probe"], baseline="simmim:method.mask_ratio=0.6"))
    assert "Δ SimMIM:method.mask_ratio=0.6" in printed


def test_one_name_is_a_choice_and_frames_of_users_are_checked(reference):
    one = mimbench.summary(reference, methods="mae", tasks="knn")
    assert one.equals(mimbench.summary(reference, methods=["mae"], tasks=["knn"]))
    for function in (mimbench.summary, mimbench.table):
        with pytest.raises(InputError, match="has records twice"):
            function(pd.concat([reference, reference]))
        with pytest.raises(InputError, match="has no column 'id'"):
            function(reference.drop(columns="id"))
        with pytest.raises(InputError, match="there are no records"):
            function(reference[reference["method"] == "none"])
