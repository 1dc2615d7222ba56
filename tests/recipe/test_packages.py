"""Recipes and tables of presets that packages ship: used by name, and refused with their owners."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from mimbench import registry
from mimbench.errors import InputError
from mimbench.recipe import document as recipe_document
from mimbench.recipe.packages import PRESET_TABLES, RECIPES
from mimbench.recipe.resolve import resolve
from mimbench.recipe.show import describe

TINY = 'summary = "Tiny"\nextends = "smoke"\n[encoders.vit]\nembed_dim = 16\n'


class Installed:
    """A distribution, as importlib.metadata describes it."""

    def __init__(self, name: str) -> None:
        self.metadata = {"Name": name, "Version": "1.0"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """package("alpha", group, name, content): a package that ships one file, as if it was installed."""
    points: list[EntryPoint] = []
    monkeypatch.syspath_prepend(tmp_path)
    installed = registry.installed_points
    monkeypatch.setattr(
        registry, "installed_points", lambda group: (*installed(group), *[p for p in points if p.group == group])
    )

    def install(owner: str, group: str, name: str, content: str, value: str | None = None) -> None:
        folder = tmp_path / f"package_{owner}"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("raise RuntimeError('reading a recipe imports no package')\n")
        file = f"{group.rpartition('.')[2]}_{name}.toml".replace("-", "_")
        (folder / file).write_text(content, encoding="utf-8")
        point = EntryPoint(name, value or f"package_{owner}:{file}", group)
        vars(point).update(dist=Installed(owner))
        points.append(point)

    return install


@pytest.fixture
def mine(monkeypatch):
    """A method of the package "alpha 1.0"."""
    from mimbench_methods.simmim import SimMIM

    monkeypatch.setattr(registry.methods, "_added", {})
    registry.methods.add("mine", "package_alpha:Mine", "alpha 1.0")
    monkeypatch.setitem(registry.methods.replacements, "mine", type("Mine", (SimMIM,), {"name": "mine"}))


def test_a_recipe_of_a_package_is_used_by_name(package, tmp_path, quick):
    package("alpha", RECIPES, "alpha-tiny", TINY)
    assert "alpha-tiny" in recipe_document.recipe_names()
    assert recipe_document.owner_of("alpha-tiny") == "alpha 1.0"
    recipe = resolve("alpha-tiny", recipe_document.read("alpha-tiny"), "simmim", {}, None)
    assert (recipe.encoder_config.embed_dim, recipe.encoder_config.depth) == (16, 2)
    assert describe("alpha-tiny", "simmim", {}).startswith("# recipe alpha-tiny, resolved for simmim (alpha 1.0)\n")
    (row,) = [line for line in quick("list").stdout.splitlines() if line.startswith("  alpha-tiny ")]
    assert row.split() == ["alpha-tiny", "alpha", "1.0", "Tiny"]


def test_recipes_extend_one_another_by_name_and_by_file(package, tmp_path):
    package("alpha", RECIPES, "alpha-tiny", TINY)
    package("beta", RECIPES, "beta-tiny", 'extends = "alpha-tiny"\n[encoders.vit]\ndepth = 1\n')
    package("beta", RECIPES, "beta-same", 'extends = "recipes_beta_tiny.toml"\n')
    for name in ("beta-tiny", "beta-same"):
        recipe = resolve(name, recipe_document.read(name), "simmim", {}, None)
        assert (recipe.encoder_config.embed_dim, recipe.encoder_config.depth) == (16, 1)
    (tmp_path / "own.toml").write_text('extends = "beta-same"\n')
    assert recipe_document.read(str(tmp_path / "own.toml"))["encoders"]["vit"]["depth"] == 1


def test_a_package_sets_options_of_its_method_in_a_preset(package, mine):
    package("alpha", PRESET_TABLES, "mnist5k-vit-tiny", "[methods.mine.method]\nmask_ratio = 0.3\n")
    for preset in ("mnist5k-vit-tiny", "smoke"):  # smoke extends the other one
        recipe = resolve(preset, recipe_document.read(preset), "mine", {}, None)
        assert recipe.method_config.mask_ratio == 0.3
        assert recipe.sources["method.mask_ratio"] == "alpha 1.0"
    assert "mask_ratio = 0.3  # alpha 1.0" in describe("smoke", "mine", {})
    other = resolve("smoke", recipe_document.read("smoke"), "simmim", {}, None)
    assert other.method_config.mask_ratio != 0.3


def test_a_package_states_the_source_of_its_values(package, mine):
    text = '[methods.mine.method]\nmask_ratio = 0.3\n[methods.mine.sources]\nmethod = "Table 2"\n'
    package("alpha", PRESET_TABLES, "smoke", text)
    recipe = resolve("smoke", recipe_document.read("smoke"), "mine", {}, None)
    assert recipe.sources["method.mask_ratio"] == "Table 2"


def test_a_name_that_two_packages_ship_is_refused_with_both(package, quick):
    package("alpha", RECIPES, "tiny", TINY)
    package("beta", RECIPES, "tiny", TINY)
    message = r"'tiny' is registered twice, by alpha 1.0 \(package_alpha:recipes_tiny.toml\) and beta 1.0"
    with pytest.raises(InputError, match=message):
        recipe_document.read("tiny")
    assert "BROKEN: recipe 'tiny' is registered twice" in quick("list").stdout


def test_the_name_of_a_preset_is_refused_with_both(package):
    package("alpha", RECIPES, "smoke", TINY)
    with pytest.raises(InputError, match=r"'smoke' is registered twice, by mimbench \S+ and alpha 1.0"):
        recipe_document.read("smoke")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "[methods.simmim.method]\nmask_ratio = 0.3\n",
            r"alpha 1\.0 .*\[methods\.simmim\], and method 'simmim' is of mim",
        ),
        ("[methods.nobody.method]\nmask_ratio = 0.3\n", r"method 'nobody' is of no installed package; leave it out"),
        ("[pretrain]\nepochs = 1\n", r"alpha 1\.0 .* has \[pretrain\]; such tables are \[methods\.NAME\]"),
        ("[methods.mine.methd]\nmask_ratio = 0.3\n", r"unknown table \[methods\.mine\.methd\].*tables of alpha 1\.0"),
        ("mask_ratio = \n", r"tables of preset 'smoke' of alpha 1\.0"),
    ],
)
def test_tables_of_a_preset_that_a_package_may_not_set_are_refused(package, mine, content, message):
    package("alpha", PRESET_TABLES, "smoke", content)
    with pytest.raises(InputError, match=message):
        recipe_document.read("smoke")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("package_nowhere:tiny.toml", "recipe 'tiny' of alpha 1.0 .*: No module named 'package_nowhere'"),
        ("package_alpha", "is no file of a package; write its entry point as"),
        ("package_alpha:missing.toml", "recipe 'tiny' of alpha 1.0 .*missing.toml"),
    ],
)
def test_an_entry_point_without_a_file_is_refused(package, value, message):
    package("alpha", RECIPES, "tiny", TINY, value)
    with pytest.raises(InputError, match=message):
        recipe_document.read("tiny")


def test_an_unknown_name_gives_the_nearest(package):
    package("alpha", RECIPES, "alpha-tiny", TINY)
    with pytest.raises(InputError, match="unknown recipe 'alpha-tny'; did you mean 'alpha-tiny'"):
        recipe_document.read("alpha-tny")
