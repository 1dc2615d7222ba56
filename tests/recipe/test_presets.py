"""Every preset resolves, and those of ImageNet have the values of the official configs, each with its source."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

import pytest
import torch

from helpers.official_recipes import HIDDEN, IMAGES, OFFICIAL, PEAKS, RATES
from helpers.presets import pairs, resolved
from mimbench.optim import Schedule
from mimbench.recipe import document as recipe_document
from mimbench.recipe.resolve import Recipe, resolve

IMAGENET = [name for name in recipe_document.preset_names() if name.startswith("imagenet-")]


@cache
def written(preset: str) -> dict:
    return tomllib.loads(files("mimbench.recipe.presets").joinpath(f"{preset}.toml").read_text(encoding="utf-8"))


def cases_of(table: dict) -> list:
    return [pytest.param(*pair, id="-".join(pair)) for pair in table]


def value(recipe: Recipe, path: str):
    current = recipe.as_tables()
    for part in path.split("."):
        current = current[part]
    return current


@pytest.mark.parametrize(("preset", "method"), pairs())
def test_every_preset_resolves_and_its_schedule_holds_together(preset, method):
    recipe = resolved(preset, method)
    assert recipe.method == method
    expected = recipe.pretrain.steps or 10 * recipe.pretrain.epochs
    assert Schedule(recipe.pretrain, steps_per_epoch=10).steps == expected


def test_the_presets_that_the_documents_name_are_there():
    assert {"mnist5k-vit-tiny", "smoke", "imagenet-vit-base"} <= set(recipe_document.preset_names())
    assert ("imagenet-vit-base", "simmim") in pairs()
    assert all(recipe_document.read(name).get("summary") for name in recipe_document.preset_names())


@pytest.mark.parametrize(("preset", "method"), cases_of(OFFICIAL))
def test_resolved_values_are_the_official_ones(preset, method):
    recipe = resolved(preset, method)
    expected = OFFICIAL[preset, method]
    assert {path: value(recipe, path) for path in expected} == expected


@pytest.mark.parametrize(("preset", "method"), cases_of(OFFICIAL))
def test_official_values_do_not_rest_on_defaults(preset, method):
    """A changed default of a Config must not change an official recipe."""
    recipe = resolved(preset, method)
    stated = {path for path, expected in OFFICIAL[preset, method].items() if expected is not None}
    assert stated - {"pretrain.accumulate"} <= set(recipe.sources)


@pytest.mark.parametrize(("preset", "method"), cases_of(RATES))
def test_effective_rates_are_the_official_ones(preset, method):
    train = resolved(preset, method).pretrain
    schedule = Schedule(train, IMAGES // train.batch_size)
    for step, rate in RATES[preset, method].items():
        assert schedule.lr(step % schedule.steps) == pytest.approx(rate, rel=1e-9), step


@pytest.mark.parametrize(("preset", "method"), cases_of(PEAKS))
def test_the_peak_rate_is_scaled_by_the_recipes_own_divisor(preset, method):
    assert resolved(preset, method).pretrain.lr == pytest.approx(PEAKS[preset, method], rel=1e-12)


@pytest.mark.parametrize(("preset", "method"), cases_of(HIDDEN))
def test_masks_hide_the_official_number_of_cells(preset, method):
    # The official tokenizers want a file of weights.
    local = {"method.tokenizer": "kmeans"}
    settings = {"beit": local, "cae": local, "beitv2": {"method.vqkd.teacher": "hog"}}.get(method, {})
    recipe = resolve(preset, recipe_document.read(preset), method, settings, None)
    with torch.device("meta"):
        encoder = recipe.encoder_class()(recipe.encoder_config, image_size=recipe.input.image_size, in_channels=3)
        model = recipe.method_class()(recipe.method_config, encoder)
    mask = model.sample_mask(64, torch.Generator().manual_seed(0))
    side, low, high = HIDDEN[preset, method]
    assert mask.shape == (64, side, side)
    counts = mask.flatten(1).sum(1)
    assert low <= counts.min()
    assert counts.max() == high


@pytest.mark.parametrize("preset", IMAGENET)
def test_every_value_has_a_source_and_every_source_a_value(preset):
    document = written(preset)
    for owner, tables in [("", document), *document.get("methods", {}).items()]:
        stated = [
            path
            for path, _ in recipe_document.values(
                {key: tables[key] for key in recipe_document.SECTIONS[:-1] if key in tables}
            )
        ]
        sources = dict(recipe_document.values(tables["sources"]))
        attributed = (
            recipe_document.read(preset)["methods"][owner]["sources"]
            if owner
            else recipe_document.read(preset)["sources"]
        )
        assert [path for path in stated if not attributed[path]] == [], owner
        unused = [path for path in sources if not any(f"{other}.".startswith(f"{path}.") for other in stated)]
        assert set(unused) <= ABSENT, (owner, unused)
        assert all("@" in text or "arXiv:" in text or text.startswith("mimbench") for text in sources.values())


ABSENT = {"encoders.vit.layer_scale", "pretrain.clip_grad", "pretrain.lr_divisor"}
"""Keys that an official recipe leaves out on purpose, with the source that says so."""
