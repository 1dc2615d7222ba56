"""Layouts show what the papers' tables show: costs, speed-ups and pretraining data beside the scores."""

from __future__ import annotations

import pytest

from mimbench.errors import InputError
from mimbench.report.published.numbers import load_published
from mimbench.report.tables.layouts import layout_names, read_layout
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


def test_the_last_row_of_maes_table_7_has_the_differences():
    table = build_layout_table(read_layout("mae-target-by-size"))
    assert [column.title for column in table.columns[1:]] == [
        *(f"ImageNet-1K {size}" for size in ("ViT-B/16", "ViT-L/16", "ViT-H/14")),
        *(f"{data} {size}" for data in ("COCO", "ADE20K") for size in ("ViT-B/16", "ViT-L/16")),
    ]
    assert [row[1:] for row in texts(table)[1:]] == [
        ["83.6", "85.9", "86.9", "50.3", "53.3", "48.1", "53.6"],
        ["83.6", "85.7", "86.9", "50.3", "53.2", "48.1", "53.4"],
        ["0.0", "−0.2", "0.0", "0.0", "−0.1", "0.0", "−0.2"],
    ]
    assert {cell.mark for row in table.rows for cell in row} == {""}
    layout = read_layout("mae-target-by-size").model_copy(update={"difference": ("target=dvae", "target=pixel")})
    with pytest.raises(InputError, match="difference: 0 rows are called 'target=dvae'"):
        build_layout_table(layout)


def test_columns_are_called_as_in_other_tables():
    titles = {name: [one.title for one in build_layout_table(read_layout(name)).columns] for name in layout_names()}
    assert titles["mae-coco"][2:] == ["AP^box ViT-B/16", "AP^box ViT-L/16", "AP^mask ViT-B/16", "AP^mask ViT-L/16"]
    assert titles["ibot-imagenet21k"][1:4] == ["k-NN", "Linear probe", "Fine-tuning 256"]
    assert not {"top1", "knn", "finetune", "linear-probe"} & {title for each in titles.values() for title in each}


def test_the_lowest_error_is_the_best():
    table = build_layout_table(read_layout("mae-robustness"))
    assert [[cell.mark for cell in row[2:4]] for row in table.rows] == [
        ["", ""],
        ["", ""],
        ["best", "second"],
        ["second", "best"],
    ]
    assert texts(table)[3] == ["ViT-H/14", "448", "36.8", "76.7", "66.5", "50.9"]


def test_layouts_of_the_built_in_methods_have_the_papers_numbers():
    rows = {name: texts(build_layout_table(read_layout(name))) for name in layout_names()}
    assert ["BEiT", "ViT-L/16", "384", "86.3"] in rows["beit-system"]
    assert ["- blockwise masking", "82.77", "42.93"] in rows["beit-components"]
    assert ["BEiT", "56.7", "73.5"] in rows["beit-linear"]
    assert ["I-JEPA", "ViT-H/16", "300", "448", "81.1"] in rows["ijepa-linear"]
    assert ["I-JEPA", "ViT-H/14", "ImageNet-1K", "87.5", "58.4", "47.6"] in rows["ijepa-transfer"]
    assert rows["ijepa-masking"][0] == ["mask=multi-block", "54.2"]
    assert ["ViT-S/16", "800", "block masking; multi-crop self-distillation", "75.2", "77.9", "82.3"] in rows[
        "ibot-models"
    ]
    by_authors = [row for row in rows["maskfeat-finetune"] if row[2] == "own"]
    assert [[row[0], row[1], row[-1]] for row in by_authors] == [
        ["ViT-B/16", "1600", "84.0"],
        ["ViT-L/16", "1600", "85.7"],
    ]
    assert ["ViT-H/14", "448", "83.4", "86.8", "88.3", "66.8", "60.3"] in rows["mae-transfer"]
    assert {row[2] for row in rows["data2vec"]} == {"quoted", "repro"}
