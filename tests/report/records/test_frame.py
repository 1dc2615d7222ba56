"""Records as a frame: columns as documented, merged by copying files, conflicts and damage told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest

import mimbench
from mimbench.errors import InputError
from mimbench.report.records.backbones import name_backbone
from mimbench.report.records.frame import COLUMNS, load_records
from mimbench.store.record import write_record


@pytest.fixture
def results(tmp_path, record):
    def write(folder, *records):
        for one in records:
            write_record(tmp_path / folder / f"{one.id}.json", one)
        return tmp_path / folder.split("/")[0]

    return write


def test_one_row_a_metric_and_the_columns_that_are_documented(results, record):
    one = trained(
        record,
        "simmim",
        metrics={"AP": 40.0, "AP50": 70.0},
        task="detection",
        recipe={"method": {"mask_ratio": 0.6}, "encoder": {"embed_dim": 768, "depth": 12, "patch_size": 16}},
        recipe_passed={"set": {"pretrain.epochs": 3, "task.layer": 2}},
        provenance={"host": "a", "commit": "c", "dirty": True, "time": "t", "command": "mimbench run"},
    )
    tidy = mimbench.load_records(results("r/records", one))
    assert list(tidy.columns) == list(COLUMNS)
    assert tidy["metric"].tolist() == ["AP", "AP50"]
    assert tidy["primary"].tolist() == [True, False]
    assert tidy["chance"].tolist()[0] == 10.0
    assert pd.isna(tidy["chance"][1])
    first = tidy.iloc[0]
    assert first["backbone"] == "ViT-B/16"
    assert first["set"] == "pretrain.epochs=3"
    assert json.loads(first["recipe_json"]) == one.recipe
    assert (first["host"], first["commit"], first["dirty"], first["seed"]) == ("a", "c", True, 0)
    assert json.loads(first["protocol_json"]) == one.protocol
    assert first["file"].endswith(f"r/records/{one.id}.json")


def trained(record, method, steps=100, **changes):
    plain = record(method)
    cost = plain.checkpoint.cost.model_copy(update={"steps": steps})
    return record(method, checkpoint=plain.checkpoint.model_copy(update={"cost": cost}), **changes)


def test_what_was_not_pretrained_has_no_settings_of_pretraining(framed, record):
    recipe = {"pretrain": {"base_lr": 0.002, "epochs": 26}, "method": {"x": 1}}
    tidy = framed(
        [
            trained(record, "simmim", recipe=recipe, varied={"pretrain.base_lr": 0.002}),
            trained(record, "mae", recipe=recipe),
            trained(record, "random-init", 0, recipe=recipe),
            trained(record, "early", 0, recipe=recipe, varied={"pretrain.at_epoch": 0}),
        ],
        ["method.x"],
    ).set_index("method")
    rates = tidy["pretrain.base_lr"]
    assert (rates["simmim"], rates["mae"], rates["early"]) == (0.002, 0.002, 0.002)
    assert pd.isna(rates["random-init"])
    assert tidy["method.x"].to_dict() == dict.fromkeys(tidy.index, 1)


def test_varied_and_asked_paths_are_columns_with_resolved_values(results, record):
    records = [
        record(varied={"method.mask_ratio": 0.3}, recipe={"method": {"mask_ratio": 0.3}, "encoder": {"depth": None}}),
        trained(record, "mae", recipe={"method": {"mask_ratio": 0.75}, "pretrain": {"betas": [0.9, 0.95]}}),
    ]
    folder = results("r/records", *records)
    tidy = load_records(folder, ["pretrain.betas", "no.such"])
    assert tidy.set_index("method")["method.mask_ratio"].to_dict() == {"simmim": 0.3, "mae": 0.75}
    assert tidy.set_index("method")["pretrain.betas"]["mae"] == "[0.9, 0.95]"
    assert tidy["no.such"].isna().all()
    assert load_records(folder)["varied"].tolist() == ["", "method.mask_ratio=0.3"]


def test_machines_merge_by_copying_files(results, record, tmp_path):
    results("r/records", record(seed=0))
    results("r/records/other", record(seed=1))
    (copied,) = (tmp_path / "r" / "records" / "other").iterdir()
    shutil.copy(copied, tmp_path / "r" / "records" / "copied once more.json")
    assert sorted(load_records(tmp_path / "r")["seed"]) == [0, 1]
    assert sorted(load_records(tmp_path)["seed"]) == [0, 1]


def test_one_id_with_two_contents_is_refused(results, record, tmp_path):
    one = record(provenance={"host": "here"})
    results("r/records", one)
    results("r/records/other", one.model_copy(update={"chance": 11.0, "provenance": {"host": "there"}}))
    with pytest.raises(
        InputError, match=r"\(host there\) and in .*\(host here\) with different content \(chance, prov"
    ):
        load_records(tmp_path / "r")


@pytest.mark.parametrize(
    "change", ["value", "space", "truncated", "one brace", "endless", "not json", "extra", "no seal"]
)
def test_damage_is_reported_whatever_the_layout_of_the_file(results, record, tmp_path, change):
    one = record(value=50.25)
    folder = results("r/records", one, record(seed=1))
    path = tmp_path / "r" / "records" / f"{one.id}.json"
    text = path.read_text()
    edits = {
        "value": text.replace("50.25", "90.25"),
        "space": text.replace('"simmim"', '"simmim "'),
        "truncated": text[:200],
        "one brace": "{",
        "endless": "[" * 100_000,
        "not json": "hello",
        "extra": text.replace('  "seed"', '  "seeed": 1,\n  "seed"'),
        "no seal": "\n".join(text.splitlines()[:-2]).rstrip(",") + "\n}\n",
    }
    path.write_text(edits[change])
    with pytest.raises(InputError, match=f"record .*{one.id}.* (is corrupt|does not match its own sha256)"):
        load_records(folder)


def test_a_sound_record_in_another_layout_is_read(results, record, tmp_path):
    one = record()
    folder = results("r/records", one)
    plain = load_records(folder)
    path = tmp_path / "r" / "records" / f"{one.id}.json"
    body = json.loads(path.read_text())
    for text in (json.dumps(body), json.dumps(dict(sorted(body.items())), indent=4), path.read_text().rstrip()):
        path.write_text(text)
        pd.testing.assert_frame_equal(load_records(folder), plain)


def test_what_is_no_record_and_nothing_at_all(results, record, tmp_path):
    with pytest.raises(InputError, match=r"results folder .* does not exist"):
        load_records(tmp_path / "none")
    with pytest.raises(InputError, match="no records in"):
        load_records(tmp_path)


@pytest.mark.parametrize(
    ("name", "encoder", "options"),
    [
        ("ViT-L/16", "vit", {"embed_dim": 1024, "depth": 24, "patch_size": 16}),
        ("vit 64x4/4", "vit", {"embed_dim": 64, "depth": 4, "patch_size": 4}),
        ("Swin-B", "swin", {"embed_dim": 128, "depths": [2, 2, 18, 2], "patch_size": 4}),
        ("swin 32 1-1", "swin", {"embed_dim": 32, "depths": [1, 1], "patch_size": 2}),
        ("ConvNeXt-T", "convnext", {"dims": [96, 192, 384, 768], "depths": [3, 3, 9, 3]}),
        ("ResNet-50", "resnet", {"block": "bottleneck", "depths": [3, 4, 6, 3]}),
        ("ResNet-18", "resnet", {"block": "basic", "depths": [2, 2, 2, 2]}),
        ("theirs", "theirs", {"layers": 3}),
    ],
)
def test_encoders_as_papers_call_them(name, encoder, options):
    assert name_backbone(encoder, options) == name


def test_importing_mimbench_stays_light():
    code = "import sys, mimbench; mimbench.load_records; print(*(m for m in ('torch', 'pydantic') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    code = "import sys, mimbench; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    with pytest.raises(AttributeError, match="no attribute 'load_record'"):
        _ = mimbench.load_record
