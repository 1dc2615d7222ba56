"""A record is compared with a published number only if all its settings are those of that number's experiment."""

from __future__ import annotations

import pytest

from helpers.preset_records import preset_record, resolved
from mimbench.contract import Config, InputConfig, PretrainConfig
from mimbench.errors import InputError
from mimbench.recipe import AT
from mimbench.recipe import document as recipe_document
from mimbench.recipe.departures import preset_values, shaping_values
from mimbench.recipe.resolve import resolve
from mimbench.report.published.numbers import (
    find_published,
    load_author_numbers,
    load_published,
    parse_settings,
    to_plugin_name,
)
from mimbench.report.records.frame import to_rows

PUBLISHED = [
    ("imagenet-swin-base", "simmim", "finetune", {}, 82.8),
    ("imagenet-swin-base", "simmim", "finetune", {"task.protocol": "simmim-swin-base-100ep-224"}, 83.5),
    ("imagenet-swin-base-800ep", "simmim", "finetune", {}, 84.0),
    ("imagenet-vit-base", "simmim", "finetune", {}, 83.8),
    ("imagenet-vit-base", "mae", "finetune", {"pretrain.epochs": 1600}, 83.57),
    ("imagenet-vit-base", "mae", "linear-probe", {"pretrain.epochs": 1600}, 67.8),
    ("imagenet-vit-large", "mae", "finetune", {"pretrain.epochs": 1600}, 85.87),
    ("imagenet-vit-large", "mae", "linear-probe", {"pretrain.epochs": 1600}, 76.0),
    ("imagenet-vit-large", "mae", "linear-probe", {"task.train.epochs": 90, "method.norm_pixels": False}, 73.5),
]
VIT_HUGE = {"encoder.embed_dim": 1280, "encoder.depth": 32, "encoder.patch_size": 14, "pretrain.epochs": 1600}


@pytest.fixture
def published_value(record, framed):
    """The published value that a record of a preset is compared with; None if there is none."""

    def find_for(*args, **changes):
        (row,) = [row for row in to_rows(framed([preset_record(record, *args, **changes)])) if row["primary"]]
        number = find_published(row, load_author_numbers()).number
        return number and number["value"]

    return find_for


@pytest.mark.parametrize(("preset", "method", "task", "settings", "value"), PUBLISHED)
def test_what_a_preset_gives_is_compared(published_value, preset, method, task, settings, value):
    assert published_value(preset, method, task, settings=settings) == value


def test_a_size_without_a_preset_is_compared_if_all_else_equals_the_nearest_preset(published_value):
    probe = ("imagenet-vit-large", "mae", "linear-probe")
    assert published_value(*probe, settings=VIT_HUGE) == 77.2
    assert published_value(*probe, settings={**VIT_HUGE, "encoder.drop_path": 0.1}) is None
    assert published_value(*probe, settings={**VIT_HUGE, "pretrain.base_lr": 1e-4}) is None


def other(value):
    """Another value of the same type as `value`; a text stays."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value or 1
    if isinstance(value, float):
        return value / 2 or 0.25
    if isinstance(value, tuple | list):
        return [*map(other, value[:-1]), other(value[-1])] if value else [0.5]
    return value


def all_changes(preset, method):
    """{path: another value} of every option that shapes a pretraining with `preset`, whatever it is called."""
    recipe = resolved(preset, method)
    configs = {
        "input": recipe.input,
        "encoder": recipe.encoder_config,
        "method": recipe.method_config,
        "pretrain": recipe.pretrain,
    }
    changes = {}

    def visit(config, prefix):
        for name, field in type(config).model_fields.items():
            value, path = getattr(config, name), f"{prefix}.{name}"
            if isinstance(value, Config):
                visit(value, path)
            elif not config.is_cosmetic(name) and path not in ("pretrain.accumulate", *AT):
                words = [word for word in getattr(field.annotation, "__args__", ()) if isinstance(word, str)]
                changes[path] = next((word for word in words if word != value), other(value))
                if value is None:
                    changes[path] = 0.5 if float in getattr(field.annotation, "__args__", ()) else 4

    for table, config in configs.items():
        visit(config, table)
    return changes


@pytest.mark.parametrize(
    ("preset", "method", "task", "settings"),
    [one[:4] for one in PUBLISHED if one[3] in ({}, {"pretrain.epochs": 1600})],
)
def test_any_other_value_of_any_option_ends_the_match(record, framed, preset, method, task, settings):
    whole = all_changes(preset, method) | {"pretrain.epochs": 1234}
    assert len(whole) > 30
    unstated = [row | {"same": ""} for row in load_author_numbers()]
    for path, new in whole.items():
        in_steps = {"pretrain.epochs": None} if path == "pretrain.steps" else {}
        one = preset_record(record, preset, method, task, settings=settings, tables={path: new} | in_steps)
        row = to_rows(framed([one]))[0]
        assert find_published(row, unstated).number is None, path


def test_what_shapes_no_result_may_differ(published_value):
    free = {
        "data.root": "/x",
        "pretrain.workers": 1,
        "pretrain.accumulate": 8,
        "pretrain.checkpoint_every": 1,
        "pretrain.compile": "on",
        "pretrain.grad_checkpointing": True,
        "pretrain.at_epoch": 100,
        "task.data.root": "/x",
        "task.train.workers": 1,
    }
    assert published_value(settings=free, recipe_passed={"set": free}) == 82.8


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder.drop_path": 0.5},
        {"encoders.swin.drop_path": 0.5},
        {"encoder.window": 12},
        {"methods.simmim.encoders.swin.window": 12},
        {"pretrain.base_lr": 1e-4},
        {"pretrain.schedule.warmup_epochs": 5},
        {"input.crop_scale": [0.2, 1.0]},
        {"pretrain.clip_grad": "none"},
        {"data.channels": 1},
        {"input.eval_interpolation": "bilinear"},
        {"task.train.base_lr": 1e-3},
        {"task.data.channels": 1},
    ],
)
def test_it_does_not_matter_how_a_setting_was_changed(published_value, settings):
    assert published_value(settings=settings) is None


def test_a_users_recipe_file_is_compared_by_what_it_sets(record, framed, tmp_path):
    for text, is_same in (("[pretrain]\nworkers = 3\n", True), ("[pretrain]\nbase_lr = 1e-4\n", False)):
        path = tmp_path / "mine.toml"
        path.write_text(f'extends = "imagenet-swin-base"\n{text}')
        recipe = resolve(str(path), recipe_document.read(str(path)), "simmim", {}, "finetune")
        tables = {name: table for name, table in recipe.as_tables().items() if name == "pretrain"}
        row = to_rows(framed([preset_record(record, tables=tables, recipe_name=str(path))]))[0]
        match = find_published(row, load_author_numbers())
        assert (match.number is not None) == is_same
        assert is_same or match.reason.endswith("the settings of these records (pretrain.base_lr)")


@pytest.mark.parametrize(
    ("images", "is_same"),
    [
        ({}, True),
        ({"train_images": 1_281_100}, True),  # some files could not be read
        ({"train_images": 126_689}, False),  # ImageNet-100 in a folder of the same form
        ({"test_images": 5_000}, False),
        ({"train_images": 640_000, "test_images": 50_000}, False),
    ],
)
def test_some_of_the_classes_are_not_the_dataset(published_value, images, is_same):
    assert published_value(**images) == (82.8 if is_same else None)


def test_setting_only_the_epochs_does_not_match_another_preset(published_value):
    at_800 = {"pretrain.epochs": 800, "task.protocol": "simmim-swin-base-800ep"}
    assert published_value(settings=at_800) is None


@pytest.mark.parametrize(
    ("pretrained", "is_same"),
    [
        ({}, True),
        ({"encoder.drop_path": 0.5}, False),
        ({"pretrain.base_lr": 1.0}, False),
        ({"pretrain.epochs": 800}, False),
        ({"pretrain.at_epoch": 50}, False),
        ({"pretrain.accumulate": 8}, True),
        ({"data.name": "cifar100"}, False),
        (None, False),
    ],
)
def test_a_given_checkpoint_is_compared_by_how_it_was_pretrained(published_value, pretrained, is_same):
    tables = {} if pretrained is None else {"pretrained": pretrained}
    value = published_value(tables=tables, recipe_passed={"checkpoint": "0" * 16, "set": {}})
    assert (value == 82.8) == is_same


def test_a_given_checkpoint_keeps_its_own_dataset(published_value):
    def run_on_another(**data):
        pretrained = {f"data.{key}": value for key, value in data.items()}
        tables = {"data": {"name": "cifar100"}, "pretrained": pretrained}
        return published_value(tables=tables, recipe_passed={"checkpoint": "0" * 16})

    # Options that are newer than the checkpoint are absent: they have their defaults.
    data = {"name": "imagenet", "channels": 3, "val_fraction": 0.2, "split_seed": 0}
    assert run_on_another(**data) == 82.8
    assert run_on_another(**data | {"channels": 1}) is None
    assert run_on_another(**data | {"name": "cifar10"}) is None


def test_an_imported_checkpoint_is_compared_with_nothing(record, framed):
    one = preset_record(record, "imagenet-vit-base", "mae", "detection", metric="AP")
    recipe = {name: table for name, table in one.recipe.items() if name != "pretrain"} | {"imported": {"sha256": "x"}}
    row = to_rows(framed([one.model_copy(update={"recipe": recipe})]))[0]
    assert (row["pretrain_dataset"], row["pretrain_epochs"], row["recipe_json"]) == (None, None, None)
    assert find_published(row, load_author_numbers()).number is None


def test_older_records_are_compared_by_their_resolved_recipe(published_value):
    assert published_value(departures=None) == 82.8
    assert published_value(departures=None, tables={"task.train.base_lr": 1.0}) is None
    assert published_value(tables={"method": {"name": "simmim"}}) == 82.8  # options that are newer than the record
    assert published_value(tables={"method.option_of_the_past": 1}) is None
    assert published_value(tables={"pretrain": {}}) is None


def test_stated_settings_are_options_of_the_resolved_recipe():
    stored = load_published()
    for method, group in stored[~stored["same"].isin(["", "-"])].groupby("method"):
        known = {path for preset in preset_values(to_plugin_name(method)) for path in preset}
        for same in set(group["same"]):
            assert set(parse_settings(same)) <= known, same


def test_options_that_are_absent_have_their_defaults():
    tables = resolved("imagenet-swin-base", "simmim").as_tables()
    values = shaping_values(tables)
    assert values["encoder.window"] == 6
    tables["encoder"].pop("window")
    assert shaping_values(tables)["encoder.window"] == 7
    assert not {path for path in values if path.split(".")[-1] in ("root", "workers", "accumulate", "compile")}
    added = {"input.frames", "input.crop"}  # newer than the first records, and left out at its default
    assert {f"input.{name}" for name in InputConfig.model_fields} - added <= set(values)
    assert "pretrain.schedule.kind" in values
    assert "precision" in PretrainConfig.model_fields
    with pytest.raises(InputError, match="unknown method 'mim'"):
        preset_values("mim")


PAPERS = {
    ("simmim", "ViT-B/16"): ("relative", 0.1),
    ("mae", "ViT-B/16"): ("sincos", None),
    ("mae", "ViT-L/16"): ("sincos", None),
    ("mae", "ViT-H/14"): ("sincos", None),
    ("beit", "ViT-B/16"): ("learned", None),  # the paper's Table 5: "ViT (used in this paper)"
    ("beit", "ViT-L/16"): ("learned", None),
    ("cae", "ViT-B/16"): ("sincos-rows-first", 0.1),
    ("cae", "ViT-L/16"): ("sincos-rows-first", 1e-5),
}
"""(position, LayerScale) of the ViTs whose numbers stand in papers, by hand."""


def test_numbers_are_compared_with_the_architecture_of_their_paper():
    rows = [row for row in load_author_numbers() if row["encoder"].startswith("ViT")]
    assert rows
    for row in rows:
        size = row["encoder"][:5]
        preset = "imagenet-vit-base" if size == "ViT-B" else "imagenet-vit-large"
        config = resolved(preset, to_plugin_name(row["method"])).encoder_config
        stated = {"encoder.position": config.position, "encoder.layer_scale": config.layer_scale}
        stated |= parse_settings(row["same"])
        expected = PAPERS[to_plugin_name(row["method"]), row["encoder"]]
        assert (stated["encoder.position"], stated["encoder.layer_scale"]) == expected, row
