"""`show recipe` prints a recipe that loads again; bad input is one clear line."""

from __future__ import annotations

import re
import tomllib

import pytest
import torch

from helpers.presets import pairs, resolved
from mimbench import registry
from mimbench.errors import InputError
from mimbench.recipe import document as recipe_document
from mimbench.recipe.resolve import SET, check_settings, resolve
from mimbench.recipe.show import describe


def lines(text: str) -> dict[str, str]:
    """Key -> the rest of its line, for keys that occur once before the tasks."""
    above = text.partition("\n[tasks.")[0].splitlines()
    return dict(line.split(" = ", 1) for line in above if " = " in line and not line.startswith("#"))


def reloaded(text: str, method: str, folder):
    path = folder / "shown.toml"
    path.write_text(text, encoding="utf-8")
    return resolve(str(path), recipe_document.read(str(path)), method, {}, None)


@pytest.fixture
def recipe_file(tmp_path):
    def write(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(("preset", "method"), pairs())
def test_what_is_shown_loads_to_the_same_recipe(preset, method, tmp_path):
    recipe = resolved(preset, method)
    again = reloaded(describe(preset, method, {}), method, tmp_path)
    assert again.as_tables() == recipe.as_tables()
    assert set(again.task_tables) == set(recipe.task_tables)
    for task in recipe.task_tables:
        assert again.task(task).config == recipe.task(task).config


def test_settings_and_task_tables_survive_the_round_trip(recipe_file, tmp_path):
    name = recipe_file(
        'extends = "smoke"\n[tasks.linear-probe]\nlayer = -2\ndataset = "digits"\n'
        '[tasks.linear-probe.data]\n"odd key" = [1.5, {a = "ä\\"\\\\"}]\ntrain_limit = 7\n'
        "[tasks.detection.train]\nepochs = 3\nlr_divisor = 16\n"
    )
    settings = {"tasks.detection.image_size": 96, "pretrain.epochs": 3, "method.mask_ratio": 0.5}
    text = describe(name, "simmim", settings)
    recipe, again = (
        resolve(name, recipe_document.read(name), "simmim", settings, None),
        reloaded(text, "simmim", tmp_path),
    )
    assert again.as_tables() == recipe.as_tables()
    for task in ("linear-probe", "detection"):
        assert again.task(task).config == recipe.task(task).config
    assert again.task("detection").config.image_size == 96
    assert again.task("detection").config.train.epochs == 3
    assert "# train: lr = base_lr x batch_size / 16 = 0.001 x 4 / 16 = 0.00025" in text


def test_the_arithmetic_of_scaled_rates_and_of_masks_is_printed():
    text = describe("imagenet-vit-base", "simmim", {})
    assert "# lr = base_lr x batch_size / 512 = 0.0001 x 2048 / 512 = 0.0004\n" in text
    assert "# warmup_lr scales as lr: 5e-07 x 2048 / 512 = 2e-06\n" in text
    assert "# from epoch 700: lr x 0.1 = 4e-05\n" in text
    assert "# mask: 30 of 7 x 7 = 49 patches masked (61.2%)\n" in text
    tomllib.loads(text)
    control = describe("imagenet-vit-base", "random-init", {})
    assert "# lr =" not in control, "a control is not trained"
    assert "# mask" not in control


def test_a_value_shows_where_it_comes_from(recipe_file):
    shown = lines(describe("imagenet-vit-base", "simmim", {"pretrain.epochs": 900}))
    assert shown["base_lr"].startswith("0.0001  # microsoft/SimMIM@d3e29bca configs/vit_base__800ep/")
    assert shown["epochs"] == f"900  # {SET}"
    assert shown["accumulate"] == "1  # default"
    whole = lines(describe("imagenet-vit-base", "simmim", {"pretrain.schedule": {"convention": "mae"}}))
    assert whole["convention"] == f'"mae"  # {SET}'
    assert whole["milestones"] == "[]  # default", "the official milestones went with their table"
    assert shown["layer_scale"] == "0.1  # microsoft/SimMIM@d3e29bca config.py (INIT_VALUES)"


def test_a_source_never_outlives_its_value(recipe_file):
    """A file that changes an official value does not go on claiming the official source."""
    base = recipe_file('[sources]\npretrain = "paper"\n[pretrain]\nepochs = 5\nbase_lr = 1e-3\n', "a.toml")
    child = recipe_file('extends = "./a.toml"\n[pretrain]\nepochs = 6\n', "b.toml")
    grandchild = recipe_file(
        'extends = "./b.toml"\n[methods.simmim.pretrain]\nbase_lr = 2e-3\n'
        '[methods.simmim.sources]\npretrain.base_lr = "own\\nrun"\n',
        "c.toml",
    )
    assert recipe_document.read(base)["sources"]["pretrain.epochs"] == "paper"
    assert recipe_document.read(child)["sources"]["pretrain.epochs"] == ""
    assert recipe_document.read(child)["sources"]["pretrain.base_lr"] == "paper"
    assert (
        recipe_document.for_method(recipe_document.read(grandchild), "simmim")["sources"]["pretrain.base_lr"]
        == "own run"
    )
    assert (
        recipe_document.for_method(recipe_document.read(grandchild), "other")["sources"]["pretrain.base_lr"] == "paper"
    )


def test_the_encoders_own_table_yields_to_the_encoder_table():
    settings = {"encoder.drop_path": 0.2, "encoders.vit.depth": 4}
    recipe = resolve("imagenet-vit-base", recipe_document.read("imagenet-vit-base"), "simmim", settings, None)
    assert (recipe.encoder_config.drop_path, recipe.encoder_config.depth) == (0.2, 4)
    assert recipe.sources["encoder.drop_path"] == recipe.sources["encoder.depth"] == SET
    assert "arXiv:2010.11929" in recipe.sources["encoder.embed_dim"]


@pytest.mark.parametrize(
    ("name", "method", "settings", "expected"),
    [
        ("imagnet-vit-base", "simmim", {}, r"unknown recipe 'imagnet-vit-base'; did you mean 'imagenet-vit-base'"),
        ("./absent.toml", "simmim", {}, r"recipe file absent.toml does not exist"),
        (
            "imagenet-swin-base",
            "mae",
            {},
            r"method 'mae' \(.*\) needs an encoder that can drop masked patches; swin \(.*\) cannot; these can: .*vit",
        ),
        ("smoke", "simmin", {}, r"unknown method 'simmin'; did you mean 'simmim'"),
        ("smoke", "simmim", {"pretrain.epoch": 3}, r"unknown key 'pretrain.epoch'; did you mean 'epochs'"),
        (
            "smoke",
            "simmim",
            {"pretrain.schedule.warmup_epoch": 3},
            r"'pretrain.schedule.warmup_epoch'; .* 'warmup_epochs'",
        ),
        ("smoke", "simmim", {"method.mask_ration": 0.5}, r"unknown key 'method.mask_ration' .* 'mask_ratio'"),
        ("smoke", "simmim", {"encoder.name": "vitt"}, r"unknown encoder 'vitt'; did you mean 'vit'"),
        ("smoke", "simmim", {"encoder.dim": 8}, r"unknown key 'encoder.dim'; did you mean 'embed_dim'"),
        ("smoke", "simmim", {"data.name": "mnist"}, r"unknown dataset 'mnist'; did you mean 'mnist5k'"),
        ("smoke", "simmim", {"data.trainlimit": 1}, r"unknown key 'data.trainlimit'; did you mean 'train_limit'"),
        ("smoke", "simmim", {"input.image_sze": 28}, r"unknown key 'input.image_sze'; did you mean 'image_size'"),
        ("smoke", "simmim", {"tasks.linear-prob.layer": 1}, r"unknown task 'linear-prob'; did you mean 'linear-probe'"),
        ("smoke", "simmim", {"tasks.linear-probe.layr": 1}, r"'tasks.linear-probe.layr'; did you mean 'layer'"),
        ("smoke", "simmim", {"task.layer": 1}, r"--set task.layer: .* --set tasks.NAME.layer=VALUE"),
        ("smoke", "simmim", {"method.mask_ratio": 1}, r"method.mask_ratio = 1: it must be less than 1"),
        ("smoke", "simmim", {"method.mask_ratio": 0.0}, r"method.mask_ratio = 0.0: it must be greater than 0"),
        ("smoke", "simmim", {"method.mask_ratio": "much"}, r"method.mask_ratio = 'much': it must be a valid number"),
        ("smoke", "simmim", {"method.name": "mae"}, r"method.name cannot be set; choose the method with --method"),
        ("smoke", "simmim", {"pretrain": 3}, r"pretrain is a table of a recipe, not 3"),
        (
            "smoke",
            "simmim",
            {"pretrain.schedule.warmup_epochs": 2},
            r"warmup_epochs 2 must be less than epochs, which is 2",
        ),
    ],
)
def test_a_bad_recipe_is_one_clear_line(name, method, settings, expected):
    with pytest.raises(InputError, match=expected) as raised:
        describe(name, method, settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[pretran]\nepochs = 2", r"unknown table \[pretran\] in recipe '.*'; did you mean 'pretrain'"),
        ("[methods.simmim.metod]\n", r"unknown table \[methods.simmim.metod\] in recipe '.*'; did you mean 'method'"),
        ("pretrain = 3", r"pretrain is a table of a recipe, not 3"),
        ("methods = 3", r"methods is a table of a recipe, not 3"),
        ("[methods]\nsimmim = 3", r"methods.simmim is a table of a recipe, not 3"),
        ("[methods.simmim]\nmethod = 3", r"methods.simmim.method is a table of a recipe, not 3"),
        ("epochs = ", r"mine.toml is not valid TOML"),
        ('extends = "./x/../mine.toml"', r"extends itself"),
        ('extends = "smok"', r"unknown recipe 'smok'; did you mean 'smoke'"),
        ("[data]\n[encoder]", r"data.name is missing: give it in the recipe or with --set data.name=NAME"),
    ],
)
def test_a_bad_file_is_one_clear_line(recipe_file, text, expected):
    with pytest.raises(InputError, match=expected) as raised:
        describe(recipe_file(text), "simmim", {})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (recipe_document.parse_assignments, "pretrain.epochs", r"--set 'pretrain.epochs' has no '='"),
        (
            recipe_document.parse_assignments,
            "pretran.epochs=3",
            r"unknown key 'pretran.epochs' in --set; did you mean 'pretrain'",
        ),
        (recipe_document.parse_assignments, "pretrain=3", r"--set 'pretrain' names a table"),
        (recipe_document.parse_variations, "method.mask_ratio", r"--vary 'method.mask_ratio' lists no values"),
        (recipe_document.parse_variations, "method.mask_ratio=", r"--vary 'method.mask_ratio=' lists no values"),
        (recipe_document.parse_variations, "method.mask_ratio= ", r"--vary .* lists no values"),
        (
            recipe_document.parse_variations,
            "metod.mask_ratio=1",
            r"unknown key 'metod.mask_ratio' in --vary; did you mean 'method'",
        ),
    ],
)
def test_a_bad_override_is_one_clear_line(parse, text, expected):
    with pytest.raises(InputError, match=expected):
        parse([text])


def test_overrides_are_read_as_toml_would_read_them():
    parsed = recipe_document.parse_assignments(
        ["data.name=digits", "pretrain.betas=[0.9, 0.95]", "encoder.layer_scale=1e-5"]
    )
    assert parsed == {"data.name": "digits", "pretrain.betas": [0.9, 0.95], "encoder.layer_scale": 1e-5}
    varied = recipe_document.parse_variations(["method.mask_ratio=0.4,0.6", "encoder.name=vit,swin"])
    assert varied == {"method.mask_ratio": [0.4, 0.6], "encoder.name": ["vit", "swin"]}


def test_a_setting_that_no_chosen_plugin_knows_is_refused():
    check_settings(["method.mask_ratio"], ["simmim", "random-init"], [])
    with pytest.raises(
        InputError, match=re.escape("unknown key 'method.mask_ratio' for method random-init; it has no options")
    ):
        check_settings(["method.mask_ratio"], ["random-init"], [])
    with pytest.raises(InputError, match=r"unknown key 'task.poling' for task linear-probe; did you mean 'pooling'"):
        check_settings(["task.poling"], ["simmim"], ["linear-probe"])


def test_a_mask_that_is_no_grid_is_refused(monkeypatch):
    simmim = registry.methods.load("simmim")
    for mask, words in (
        (object(), "# mask: no grid"),
        (torch.zeros(4, 9), "# mask: no grid"),
        (torch.zeros(4, 3, 3, dtype=torch.bool, device="meta"), "# mask: not counted: "),
    ):
        monkeypatch.setattr(simmim, "sample_mask", lambda self, batch, generator, mask=mask: mask)
        assert words in describe("smoke", "simmim", {})


def test_masks_are_counted_for_a_method_that_needs_the_encoder_s_parts(monkeypatch):
    simmim = registry.methods.load("simmim")
    expected = next(line for line in describe("smoke", "simmim", {}).splitlines() if line.startswith("# mask: "))

    class NeedsParts(simmim):
        def __init__(self, config, encoder):
            super().__init__(config, encoder)
            self.first = next(encoder.parameters()).shape  # an encoder of sizes only has none

    monkeypatch.setitem(registry.methods.replacements, "simmim", NeedsParts)
    assert expected in describe("smoke", "simmim", {})
    assert "not counted" not in expected
