"""What is refused when a plugin is loaded, with the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import BaseModel, Field

from helpers.toy_plugins import Toy, ToyConfig
from mimbench import registry
from mimbench.contract import Audit, Config, DataConfig, Method, Metric, StepOutput, TaskConfig, TrainConfig, cosmetic
from mimbench.contract.check import find_problem


@pytest.fixture(scope="module")
def kinds():
    """A sound class of each kind, to be spoiled."""
    names = {"method": "simmim", "task": "knn", "dataset": "digits", "encoder": "vit"}
    registries = {kind.kind: kind for kind in registry.ALL}
    return {kind: registries[kind].load(name) for kind, name in names.items()}


def spoiled(cls, **attributes):
    return type("Spoiled", (cls,), attributes)


def test_sound_plugins_have_no_problem(kinds):
    assert find_problem("task", "toy", Toy) is None
    for kind, cls in kinds.items():
        assert find_problem(kind, getattr(cls, "name", "vit"), cls) is None


@pytest.mark.parametrize(
    ("kind", "attributes", "words"),
    [
        ("method", {"name": "other"}, ("it is named 'other'", "entry point 'x'")),
        ("method", {"name": None}, ('add name = "x"',)),
        ("task", {"name": 3}, ("name = 3 is not a string",)),
        ("dataset", {"name": None}, ("no `name`",)),
        ("method", {"version": None}, ('add version = "1"',)),
        ("task", {"version": 1}, ('write version = "1"',)),
        ("encoder", {"version": 2.0}, ('write version = "1"',)),
        ("encoder", {"kind": None}, ("no `kind`",)),
        ("method", {"encoder_needs": "any-size"}, ('write encoder_needs = frozenset({"any-size"})',)),
        ("method", {"encoder_needs": None}, ("not a collection of names",)),
        (
            "method",
            {"encoder_needs": {"visibel-only"}},
            ("'visibel-only' is not an ability", "did you mean 'visible-only'"),
        ),
        ("encoder", {"can": frozenset({"pyramids"})}, ("can: 'pyramids'", "use names from mimbench.api.ABILITIES")),
        ("task", {"encoder_needs": frozenset({"labels"})}, ("encoder_needs: 'labels' is not an ability of encoders",)),
        ("method", {"supervision": "labels"}, ('write supervision = ("labels",)',)),
        (
            "method",
            {"waivers": {"masks_difer": "they are fixed"}},
            ("waivers: 'masks_difer' is no check of a method", "did you mean 'masks_differ'"),
        ),
        ("task", {"waivers": {"batch_size_does_not_matter": " "}}, ("has no reason; say why the check may fail",)),
        ("encoder", {"waivers": ("sizes_are_declared",)}, ("is not a table; write waivers = {CHECK: REASON}",)),
        ("method", {"needs": frozenset({"mask-tokens"})}, ("declares `needs`, which is now called `encoder_needs`",)),
        ("method", {"official_names": {}}, ("declares `official_names`, which is now called `official`",)),
        ("method", {"official_configs": {}}, ("declares `official_configs`, which is now called `official`",)),
        ("task", {"needs": "boxes"}, ('needs = frozenset({"boxes"})',)),
        ("dataset", {"provides": "images"}, ('provides = frozenset({"images"})',)),
        ("task", {"metrics": ()}, ("declares no `metrics`",)),
        ("task", {"metrics": ("accuracy",)}, ("declares no `metrics`",)),
        ("method", {"Config": dict}, ("Config is dict, not a subclass of mimbench.api.Config",)),
        ("method", {"Config": BaseModel}, ("Config is BaseModel",)),
        ("method", {"Config": None}, ("Config is None",)),
        ("task", {"Config": Config}, ("mimbench.api.TaskConfig",)),
        ("dataset", {"Config": Config}, ("mimbench.api.DataConfig",)),
    ],
)
def test_a_class_that_breaks_the_contract_is_refused_with_the_remedy(kind, attributes, words, kinds):
    problem = find_problem(kind, "x", spoiled(kinds[kind], **{"name": "x", **attributes}))
    assert all(word in problem for word in words), problem


def test_parts_that_are_left_out_are_listed():
    class Half(Method):
        name, version = "x", "1"

        def target(self, images):
            return images

    problem = find_problem("method", "x", Half)
    assert "class Half has no training step: it does not define sample_mask, predict, loss; add them, or" in problem


def test_views_are_a_class_method(kinds):
    problem = find_problem(
        "method", "x", spoiled(kinds["method"], name="x", views=lambda self, config, input: (input,))
    )
    assert "views is not a class method; write @classmethod above it" in problem


def test_the_check_of_a_training_is_a_class_method(kinds):
    problem = find_problem(
        "method", "x", spoiled(kinds["method"], name="x", check_training=lambda self, *options: None)
    )
    assert "check_training is not a class method; write @classmethod above it" in problem


def test_needs_are_a_set(kinds):
    problem = find_problem("method", "x", spoiled(kinds["method"], name="x", encoder_needs=("mask-tokens",)))
    assert "encoder_needs = ('mask-tokens',) is not a collection of names; write encoder_needs = frozenset" in problem


def test_a_method_is_complete_with_its_step_or_if_it_is_never_trained():
    class Step(Method):
        name, version = "x", "1"

        def step(self, batch, generator):
            return StepOutput(self.encoder.features(batch.images).pooled.mean())

    class Untrained(Method):
        name, version, pretrains = "x", "1", False

    class Forward(Method):
        name, version = "x", "1"

        def forward(self, images, mask):
            return StepOutput(images.mean())

    assert find_problem("method", "x", Step) is None
    assert find_problem("method", "x", Untrained) is None
    assert "does not define sample_mask; add it" in find_problem("method", "x", Forward)


def test_an_entry_point_is_a_class_of_its_kind(kinds):
    assert "it is a function, not a class" in find_problem("method", "x", lambda config, encoder: None)
    assert "not a subclass of mimbench.api.Method" in find_problem("method", "x", kinds["task"])
    assert "not a subclass of mimbench.api.Encoder" in find_problem("encoder", "x", torch.nn.Linear)


class Colour(Enum):
    RED = "red"


class Inner(Config):
    names: frozenset[str] = frozenset()


class Loose(BaseModel):
    a: int = 1


SETS = [
    *(set[str], set, frozenset[int], dict[str, set[int]], tuple[set[str], ...] | None),
    *(Inner, Inner | None, list[Inner], Annotated[set[str], Field(max_length=2)]),
]


@pytest.mark.parametrize("annotation", SETS)
def test_sets_have_no_stable_form(annotation):
    options = type("Options", (Config,), {"__annotations__": {"kinds": annotation}, "__module__": __name__})
    problem = find_problem("method", "x", _method(options))
    assert "set, whose order, and so its fingerprint, differs from process to process" in problem
    assert "'kinds" in problem
    assert "a tuple or a sorted list" in problem


@pytest.mark.parametrize("annotation", [torch.dtype, object, Loose, list[Loose], type])
def test_options_that_no_recipe_can_give_are_refused(annotation):
    extra = {"model_config": {"arbitrary_types_allowed": True}}
    options = type("Options", (Config,), {"__annotations__": {"odd": annotation}, "__module__": __name__, **extra})
    assert "option 'odd' is a" in find_problem("method", "x", _method(options))


def test_plain_options_and_cosmetic_ones_are_fine():
    class Options(Config):
        a: int | None = None
        b: tuple[float, ...] = ()
        c: Literal["x", "y"] = "x"
        d: dict[str, list[int]] | None = None
        e: Path | None = None
        f: Colour = Colour.RED
        g: Annotated[float, Field(gt=0)] = 1.0
        h: Any = None
        i: Sequence[str] = ()
        j: set[str] = cosmetic(set())

    assert find_problem("method", "x", _method(Options)) is None


@pytest.mark.parametrize(
    ("kind", "base", "name"),
    [
        ("method", Config, "name"),
        ("method", Config, "version"),
        ("encoder", Config, "version"),
        ("dataset", DataConfig, "name"),
        ("task", TaskConfig, "task"),
        ("task", TaskConfig, "version"),
        ("task", TaskConfig, "input"),
        ("task", TaskConfig, "precision"),
    ],
)
def test_option_names_that_the_harness_uses_itself_are_refused(kind, base, name, kinds):
    options = type("Options", (base,), {"__annotations__": {name: str}, name: "x", "__module__": __name__})
    problem = find_problem(kind, "x", spoiled(kinds[kind], name="x", Config=options))
    assert f"option {name!r} has a name that mimbench uses itself" in problem


def test_a_task_s_metrics_are_declared():
    class Bare(Toy):
        name = "x"
        Config = ToyConfig
        metrics = (Metric("a", "percent", 0, 100), "b")

    assert "declares no `metrics`" in find_problem("task", "x", Bare)


def _method(options):
    return spoiled(registry.methods.load("simmim"), name="x", Config=options)


def test_a_default_that_the_config_refuses_is_the_plugin_s_fault(kinds):
    class Refuses(Config):
        needed: int
        ratio: float = Field(1.5, le=1)

    problem = find_problem("method", "x", spoiled(kinds["method"], name="x", Config=Refuses))
    assert problem.startswith("the default of its option 'ratio', 1.5, is not valid (Input should be less than or")

    class Needs(Config):
        needed: int

    assert find_problem("method", "x", spoiled(kinds["method"], name="x", Config=Needs)) is None


def test_an_audit_may_waive_the_checks_of_audits_and_no_others(kinds):
    class Search(Audit, kinds["task"]):
        name, waivers = "x", {"null_is_chance": "its score is a rank"}
        doses = (0, 1, 2)

        def plant(self, dose, seed, folder):
            raise NotImplementedError

        oracle = plant

    assert find_problem("task", "x", Search) is None
    Search.waivers = {"shuffled_labels_give_chance": "it has none"}
    assert "'shuffled_labels_give_chance' is no check of an audit" in find_problem("task", "x", Search)


@pytest.mark.parametrize("option", ["epochs", "checkpoint_every"])
def test_a_length_in_epochs_may_be_none(option, kinds):
    Training = type("Training", (TrainConfig,), {"__annotations__": {option: int}, option: 5})
    Options = type("Options", (TaskConfig,), {"__annotations__": {"train": Training | None}, "train": None})
    problem = find_problem("task", "x", spoiled(kinds["task"], name="x", Config=Options))
    assert f"its option 'train.{option}' cannot be none" in problem
    assert "declare it as `int | None`" in problem
