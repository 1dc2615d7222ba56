"""Layouts show what the papers' tables show: costs, speed-ups and pretraining data beside the scores."""

from __future__ import annotations

from mimbench.report.published.numbers import load_published
from mimbench.report.tables.layouts import read_layout
from mimbench.report.tables.papers import build_layout_table
from mimbench.report.tables.render.numbers import cell_text


def texts(table):
    return [[cell_text(cell) for cell in row] for row in table.rows]


def test_layouts_tell_what_pretraining_costs():
    wall_clock = build_layout_table(read_layout("mae-wall-clock"))
    assert texts(wall_clock) == [
        ["encoder ViT-L, w/ [M]", "decoder_blocks=8", "84.2", "42.4", "-"],
        ["encoder ViT-L", "decoder_blocks=8", "84.9", "15.4", "2.8×"],
        ["encoder ViT-L", "decoder_blocks=1", "84.8", "11.6", "3.7×"],
        ["encoder ViT-H, w/ [M]", "decoder_blocks=8", "-", "119.6", "-"],
        ["encoder ViT-H", "decoder_blocks=8", "85.8", "34.5", "3.5×"],
        ["encoder ViT-H", "decoder_blocks=1", "85.9", "29.3", "4.1×"],
    ]
    assert wall_clock.notes == ("estimated by training ten epochs",)
    assert wall_clock.remarks[0].startswith("published, scores in percent: ")
    head = build_layout_table(read_layout("simmim-head"))
    assert texts(head)[1:3] == [
        ["head=2-layer MLP", "90.9", "82.8", "1.2×"],
        ["head=inverse Swin-T", "115.2", "82.4", "1.7×"],
    ]
    assert [row[3].mark for row in head.rows] == ["best", "second", "", ""]


def test_speedups_are_those_of_the_hours():
    table = load_published()
    table = table[table["study"] == "wall-clock"]
    hours = table[table["metric"] == "hours"].set_index(["setting", "variant"])["value"]
    for _, row in table[table["metric"] == "speedup"].iterrows():
        with_tokens = hours[f"{row['setting']}, w/ [M]", "decoder_blocks=8"]
        assert row["value"] == round(with_tokens / hours[row["setting"], row["variant"]], 1)


def test_layouts_of_systems_tell_the_data_and_of_partial_fine_tuning_each_depth():
    system = texts(build_layout_table(read_layout("mae-system")))
    assert [row[:3] for row in system[::3]] == [["Supervised", "-", "82.3"], ["BEiT", "ImageNet-1K+DALLE", "83.2"]]
    partial = texts(build_layout_table(read_layout("mae-partial-finetune")))
    assert partial[0] == ["blocks_tuned=0", "73.5", "77.6"]
    assert [row[0].split("=")[1].split()[0] for row in partial] == ["0", "0.5", "1", "2", "4", "6", "12", "18", "24"]
    assert all(float(mae) > float(moco) for _, mae, moco in partial[2:])
    assert any("pretraining costs" in line for line in build_layout_table(read_layout("simmim-system")).remarks)
