"""Published numbers: validated with file and line, matched with records by explicit rules, laid out as papers do."""

from __future__ import annotations

import re

import pytest

from helpers.preset_records import preset_record, resolved
from mimbench.errors import InputError
from mimbench.report.published.numbers import (
    LAST_EPOCH,
    find_published,
    load_author_numbers,
    load_published,
    parse_settings,
    read_published,
    to_plugin_name,
)
from mimbench.report.records.frame import to_rows
from mimbench.report.records.row import format_protocol
from mimbench.report.scores.choice import Choice
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.layouts import Layout, layout_names, read_layout
from mimbench.report.tables.papers import build_layout_table, build_published_table
from mimbench.report.tables.render.numbers import cell_text
from mimbench.store.record import Named

HEADER = (
    "paper,source,reported,method,encoder,params_m,pretrain_data,epochs,resolution,"
    "task,dataset,protocol,metric,value,unit,detail,doubt"
)
GOOD = "P,Table 1,own,MAE,ViT-B/16,,ImageNet-1K,800,224,knn,ImageNet-1K,p,top1,50,percent,,"


def ours(record, value=83.0, seed=0, **changes):
    """A record of SimMIM on Swin-B, 100 epochs, fine-tuned at 192 px under that protocol of SimMIM."""
    return preset_record(record, value=value, seed=seed, **changes)


def test_every_stored_number_is_valid():
    table = load_published()
    assert len(table) == 1286
    assert table.loc[table["unit"] == "percent", "value"].between(0, 100).all()
    assert set(table.loc[table["unit"] != "percent", "task"]) == {"pretraining"}
    assert set(table.loc[table["task"] == "pretraining", "protocol"]) == {""}
    assert set(table["reported"]) == {"own", "repro", "re-eval", "quoted"}
    assert set(table.loc[table["protocol"] != "", "reported"]) == {"own"}
    assert table.loc[(table["study"] == "masking-strategy") & (table["value"] == 83.0), "variant"].tolist() == [
        "mask_ratio=0.5"
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD.replace(",50,", ",x,"), ":3: value: "),
        (GOOD.replace(",50,", ",150,"), ":3: value: "),
        (GOOD.replace(",50,percent,", ",-1,hours,"), ":3: value: "),
        (GOOD.replace(",own,", ",ours,"), ":3: reported: "),
        (GOOD.replace(",percent,", ",%,"), ":3: unit: "),
        (GOOD.replace("P,", ",", 1), ":3: paper: "),
        (GOOD[:-1], ":3: as many fields are needed as in the header, 17"),
        (GOOD + ",more", ":3: as many fields"),
        (GOOD.replace(",50,", ",51,"), ":3: line 2 already is the number to compare"),
    ],
)
def test_a_bad_row_is_refused_with_file_and_line(tmp_path, row, message):
    path = tmp_path / "bad.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{row}\n")
    with pytest.raises(InputError) as error:
        read_published(path)
    assert f"{path}{message}" in str(error.value)


def test_an_unknown_column_and_a_bad_condition_are_refused(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(f"{HEADER},colour\n{GOOD},red\n")
    with pytest.raises(InputError, match=r"bad.csv:2: colour: Extra inputs"):
        read_published(path)
    path.write_text(f"{HEADER},same\n{GOOD},mask_ratio\n")
    with pytest.raises(InputError, match=r"bad.csv:2: same: .*path=value"):
        read_published(path)


def test_conditions_and_names():
    assert parse_settings("method.a=0.6 method.b=none method.c=true method.d=l1 method.e=8") == {
        "method.a": 0.6,
        "method.b": None,
        "method.c": True,
        "method.d": "l1",
        "method.e": 8,
    }
    assert parse_settings("-") == {}
    assert [to_plugin_name(name) for name in ("SimMIM", "MoCo v3", "MAE (HiViT)", "Hiera-B+")] == [
        "simmim",
        "moco-v3",
        "mae-hivit",
        "hiera-bplus",
    ]


def test_a_record_is_compared_under_the_same_protocol(record, framed):
    tidy = framed([ours(record, value, seed) for seed, value in enumerate((82.9, 83.1, 83.0))])
    table = build_comparison(tidy, Choice(published=True))
    cell = table.rows[0][-1]
    assert (cell_text(cell), cell.content.numbers) == ("82.8 (+0.2)", (82.8, pytest.approx(0.2)))
    assert cell.notes == ("SimMIM paper (arXiv 2111.09886v2), Table 9",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"settings": {"task.protocol": "mae-vit-base"}}, "protocol of these records (mae-vit-base)"),
        ({"tables": {"task.protocol": None}}, "protocol of these records (a protocol without a name)"),
        (
            {"settings": {"task.train.epochs": 30}},
            "protocol of these records (simmim-swin-base-100ep, train.epochs=30)",
        ),
        ({"settings": {"encoder.depths": [2, 2, 6, 2]}}, "encoder of these records (swin 128 2-2-6-2)"),
        ({"settings": {"pretrain.epochs": 50}}, "epochs of these records (50 epochs)"),
        ({"settings": {"input.image_size": 256}}, "settings of these records (input.image_size)"),
        (
            {"preset": "imagenet-vit-base", "method": "mae", "task": "linear-probe"}
            | {"settings": {"pretrain.epochs": 1600, "input.image_size": 256}},
            "image size of these records (256 px)",
        ),
        ({"tables": {"data.name": "digits"}}, "pretraining data of these records (digits)"),
        ({"dataset": {"name": "cifar10", "version": "x"}}, "dataset of these records (cifar10)"),
        ({"metric": "ECE"}, "metric of these records (finetune ECE)"),
        ({"test_images": 5000}, "test images of these records (5,000)"),
        ({"train_images": 128_000}, "pretraining images of these records (126,976 per epoch)"),
        ({"settings": {"method.mask_ratio": 0.35}}, "settings of these records (method.mask_ratio)"),
        ({"settings": {"pretrain.base_lr": 1}}, "settings of these records (pretrain.base_lr)"),
        ({"method": "supervised"}, "no number of supervised is stored"),
    ],
)
def test_different_settings_are_not_compared_and_listed(record, framed, changes, reason):
    table = build_comparison(framed([ours(record, **changes)]), Choice(published=True))
    cell = table.rows[0][-1]
    assert (cell_text(cell), cell.content) == ("-", None)
    assert reason in cell.notes[0]
    assert cell.notes[0].startswith("not compared: ")


def test_only_authors_own_numbers_are_compared(record, framed):
    row = to_rows(framed([ours(record)]))[0]
    stored = [entry for entry in to_rows(load_published()) if entry["method"] == "SimMIM"]
    others = [entry | {"reported": "repro"} for entry in stored]
    assert find_published(row, stored).number is not None
    assert find_published(row, others).number is None
    assert find_published({**row, "at_epoch": row["pretrain_epochs"]}, stored).number is not None
    early = find_published({**row, "at_epoch": 50, "final": False}, stored)
    assert early.number is None
    assert early.reason.endswith(f"(epoch 50 of {row['pretrain_epochs']})")


def test_the_list_of_published_numbers():
    table = build_published_table(["simmim"], ["detection"])
    assert [cell_text(row[8]) for row in table.rows] == ["52.3", "53.8", "54.4", "49.9"]
    assert {cell_text(row[9]) for row in table.rows} == {"own"}
    assert "6 quoted duplicates omitted" in table.remarks[0]
    with pytest.raises(InputError, match="no published number has the method 'simim'; did you mean 'simmim'"):
        build_published_table(["simim"])
    with pytest.raises(InputError, match="has the task 'knn'; known: detection, finetune, segm"):
        build_published_table(["fcmae"], ["knn"])


def texts(table):
    return [[cell_text(cell) for cell in row] for row in table.rows]


def test_layouts_print_from_published_numbers_only():
    names = layout_names()
    assert len(names) == 44
    for name in names:
        table = build_layout_table(read_layout(name))
        assert table.rows, name
        assert all(column.title != "ours" for column in table.columns)
    assert texts(build_layout_table(read_layout("simmim-scaling"))) == [
        ["Supervised", "83.3", "83.5", "83.3", "-", "-"],
        ["SimMIM", "84.0", "85.4", "85.7", "87.1", "90.2"],
    ]
    assert texts(build_layout_table(read_layout("simmim-loss"))) == [
        ["scope=masked area", "82.8"],
        ["scope=full image", "81.7"],
    ]


def test_the_layout_of_probes_has_three_probes_of_each_encoder_side_by_side():
    table = build_layout_table(read_layout("probes"))
    assert [column.title for column in table.columns[-3:]] == ["k-NN", "Linear probe", "Attentive probe"]
    assert len(table.rows) == 37
    values = {row[0].content: [cell.content.value for cell in row[-3:]] for row in table.rows}
    assert (values["SimMIM"], values["BEiT v2"]) == ([8.59, 47.15, 64.86], [70.09, 78.99, 81.39])


def test_layouts_have_a_column_of_ours_where_records_match(record, framed):
    layout = read_layout("simmim-masking")
    varied = {"method.mask_ratio": 0.5}
    records = [ours(record, 83.0 + s / 10, s, varied=varied, settings=varied) for s in (0, 1)]
    records.append(ours(record, 82.0))
    table = build_layout_table(layout, framed(records))
    assert [column.title for column in table.columns] == ["setting", "variant", "Top-1 accuracy", "ours"]
    cells = {cell_text(row[1]): cell_text(row[3]) for row in table.rows if cell_text(row[3]) != "-"}
    assert cells == {"mask_ratio=0.5": "83.0 ± 0.1 (n=2), +0.0", "mask_ratio=0.6": "82.0 (n=1), −0.8"}
    assert "ours: mean ± std over n seeds" in table.remarks[-1]


def test_a_layout_without_a_match_names_the_nearest_record_and_what_differs(record, framed):
    layout = read_layout("simmim-masking")
    other = ours(record, 82.0).model_copy(update={"dataset": Named(name="mnist5k", version="v")})
    far = other.model_copy(update={"id": "far", "method": Named(name="mae", version="1")})
    table = build_layout_table(layout, framed([other, far]))
    assert [line for line in table.remarks if line.startswith("ours: ")] == [
        "ours: no record matches; nearest: SimMIM on mnist5k, Fine-tuning: differs in dataset"
    ]
    assert "nearest" not in " ".join(build_layout_table(layout, framed([far])).remarks)
    assert "nearest" not in " ".join(build_layout_table(layout).remarks)


def test_our_settings_are_not_averaged_in_a_layout(record, framed):
    layout = read_layout("simmim-loss")
    both = [ours(record, value, pretraining=name) for value, name in ((1.0, "a"), (2.0, "b"))]
    table = build_layout_table(layout, framed(both))
    assert cell_text(table.rows[0][-1]) == "-"
    assert table.rows[0][-1].notes == ("2 of our settings match; they are not averaged",)


def test_a_users_layouts_and_their_errors(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "T"\nrows = ["method"]\ncolumns = ["metric"]\n[[where]]\nstudy = "loss-area"\n')
    with pytest.raises(InputError, match="two numbers in one cell: SimMIM Swin-B finetune top1"):
        build_layout_table(read_layout(str(path)))
    for text, message in (
        ('title = "T"\nrows = []\n[[where]]\nstudy = "x"', "rows: "),
        ('title = "T"\nrow = ["method"]\n[[where]]\nstudy = "x"', "row"),
        ("title = ", "is not valid TOML"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_layout(str(path))
    with pytest.raises(InputError, match="unknown field 'studdy'; did you mean 'study'"):
        build_layout_table(Layout(title="T", rows=("method",), where=({"studdy": "x"},)))
    with pytest.raises(InputError, match="no published number has"):
        build_layout_table(Layout(title="T", rows=("method",), where=({"study": "x"},)))
    with pytest.raises(InputError, match="unknown layout 'simmim-mask'; did you mean 'simmim-masking'"):
        read_layout("simmim-mask")
    with pytest.raises(InputError, match="does not exist"):
        read_layout(str(tmp_path / "none.toml"))


def test_protocols_that_numbers_name_are_there():
    from mimbench.registry import tasks

    named = load_published()
    named = named[named["protocol"] != ""]
    for task, group in named.groupby("task"):
        plugin = tasks.load(task)
        assert {name.split(", ")[0] for name in group["protocol"]} <= set(plugin.protocols), task
        assert set(group["metric"]) <= {metric.name for metric in plugin.metrics}, task


def test_departures_of_presets_from_protocols_are_those_that_numbers_name(record, framed):
    from mimbench.recipe.departures import departures
    from mimbench.recipe.document import read
    from mimbench.recipe.resolve import resolve

    named = load_published()
    named = named[(named["method"] == "MAE") & (named["encoder"] == "ViT-L/16") & (named["study"] == "")]
    for task, protocol in (("linear-probe", "mae"), ("detection", "vitdet"), ("detection", "vitdet-cascade")):
        recipe = resolve("x", read("imagenet-vit-large"), "mae", {"task.protocol": protocol}, task)
        one = record(recipe={"task": {"protocol": protocol}}, departures=departures(recipe.task(task)))
        (name,) = framed([one])["protocol_name"]
        stored = named.loc[(named["task"] == task) & named["protocol"].str.match(rf"{protocol}(,|$)"), "protocol"]
        assert set(stored) == {name}


def test_settings_that_variants_name_are_there():
    from mimbench.registry import methods

    stored = load_published()
    for method, group in stored[~stored["same"].isin(["", "-"])].groupby("method"):
        config = methods.load(to_plugin_name(method)).Config
        for same in set(group["same"]):
            options = {path.partition(".")[2]: value for path, value in parse_settings(same).items() if path[0] == "m"}
            assert set(options) <= set(config.model_fields), same
            config(**options)


def test_departures_that_numbers_name_are_spelled_as_records_spell_them():
    from mimbench.recipe.departures import departures
    from mimbench.recipe.document import parse_value

    named = load_published()
    for task, group in named[named["protocol"].str.contains(", ")].groupby("task"):
        for text in set(group["protocol"]):
            protocol, *options = re.split(r", (?=[\w.]+=)", text)
            settings = {f"task.{path}": parse_value(value) for path, value in (one.split("=") for one in options)}
            recipe = resolved("imagenet-vit-base", "mae", {"task.protocol": protocol, **settings}, task)
            assert format_protocol(protocol, departures(recipe.task(task))) == text


def test_numbers_are_not_compared_under_protocols_whose_training_is_mimbenchs_own():
    from mimbench.registry import tasks

    for row in load_author_numbers():
        protocol = tasks.load(row["task"]).protocols[row["protocol"].split(", ")[0]]
        chosen_here = [path for path, source in protocol.sources.items() if source.startswith("mimbench")]
        assert chosen_here == [], (row["source"], protocol)


def test_maes_ablations_of_plain_pixels_are_fine_tuned_as_its_appendix_says():
    rows = [
        row for row in load_author_numbers() if "method.norm_pixels=false" in row["same"] and row["task"] == "finetune"
    ]
    assert len(rows) == 35
    base = "mae-vit-base, train.base_lr=0.001, train.layer_decay=0.75, erase_prob=0.0"  # its drop path is 0.1 already
    for row in rows:
        large = row["encoder"] == "ViT-L/16"
        assert row["protocol"] == ("mae-vit-large, drop_path=0.1, erase_prob=0.0" if large else base)


def test_sources_can_be_looked_up_by_anyone():
    stored = load_published()
    assert not stored["source"].str.contains(r"stored|\bid \d", case=False).any()
    probing = stored[stored["paper"].str.startswith("Efficient Probing")]
    assert set(probing["source"]) == {"billpsomas/efficient-probing@b8f4fb8 results.csv"}
    assert set(probing["task"].value_counts()) == {37}


def test_tables_of_clips_have_a_row_per_number_of_views():
    rows = [[*row] for row in texts(build_layout_table(read_layout("videomae-k400")))]
    assert ["VideoMAE", "ViT-L", "Kinetics-400", "16x4, 5 clips x 3 crops", "85.2", "96.8"] in rows
    assert ["VideoMAE", "ViT-L", "Kinetics-400", "32 frames, 4 x 3, 320 px", "86.1", "97.3"] in rows


def test_published_knn_states_its_pooling_and_is_compared_with_nothing():
    stored = load_published()
    knn = stored[(stored["task"] == "knn") & stored["paper"].str.startswith("Efficient Probing")]
    assert knn["metric"].str.fullmatch(r"top1_k\d+").all()
    assert knn["detail"].str.match("pooling: (class token|mean of the patch tokens),").all()
    assert set(knn["protocol"]) == {""}
    of_mae = knn[(knn["method"] == "MAE") & (knn["encoder"] == "ViT-B/16")]
    assert of_mae[["metric", "value"]].to_numpy().tolist() == [["top1_k20", 35.57]]


def test_a_teacher_is_part_of_what_was_pretrained_on():
    stored = load_published()
    of_itpn = stored[(stored["method"] == "BEiT v2") & stored["paper"].str.contains("iTPN")]
    assert of_itpn["pretrain_data"].tolist() == ["ImageNet-1K+CLIP teacher"]


def test_a_best_epoch_compared_with_a_last_one_is_noted(record, framed):
    table = build_comparison(framed([ours(record)]), Choice(published=True))
    said = [
        *build_published_table(["simmim"], ["finetune"]).remarks,
        *build_layout_table(read_layout("mae-system")).remarks,
    ]
    assert LAST_EPOCH in table.columns[-1].notes[0]
    assert sum(LAST_EPOCH in remark for remark in said) == 2
