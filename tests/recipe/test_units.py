"""Lengths of trainings in epochs or steps: the last layer of a recipe that sets one of them decides the unit."""

from __future__ import annotations

import pytest

from mimbench.errors import InputError
from mimbench.harness.run import RunOptions, _request
from mimbench.recipe import document as recipe_document
from mimbench.recipe.departures import departures
from mimbench.recipe.grid_file import GridFile
from mimbench.recipe.resolve import resolve
from mimbench.recipe.show import describe


def resolved(settings=(), recipe="smoke", method="simmim", task=None):
    return resolve(recipe, recipe_document.read(recipe), method, dict(settings), task)


def test_steps_of_the_command_line_replace_epochs_of_the_preset():
    pretrain = resolved({"pretrain.steps": 7, "pretrain.schedule.warmup_steps": 2}).pretrain
    assert (pretrain.steps, pretrain.epochs, pretrain.unit) == (7, None, "step")
    assert (pretrain.schedule.warmup_steps, pretrain.schedule.warmup_epochs) == (2, 0)


def test_none_replaces_nothing():
    assert resolved({"pretrain.steps": "none"}).pretrain.epochs == resolved().pretrain.epochs > 0


@pytest.mark.parametrize("order", [1, -1])
def test_both_units_in_one_layer_are_refused(tmp_path, order):
    both = [("pretrain.epochs", 3), ("pretrain.steps", 7)][::order]
    with pytest.raises(InputError, match=r"pretrain\.epochs 3 and steps 7 are both set: set only one"):
        resolved(both)
    path = tmp_path / "mine.toml"
    path.write_text('extends = "smoke"\n[pretrain]\nepochs = 3\nsteps = 7\n')
    with pytest.raises(InputError, match=r"pretrain\.epochs 3 and steps 7 are both set: set only one"):
        resolved(recipe=str(path))


def test_each_layer_of_recipe_files_replaces_the_unit_below(tmp_path):
    base, middle, top = (tmp_path / f"{name}.toml" for name in ("base", "middle", "top"))
    base.write_text('extends = "smoke"\n[pretrain]\nsteps = 7\n[sources]\n"pretrain.steps" = "a paper"\n')
    middle.write_text('extends = "base.toml"\n[methods.mae.pretrain]\nepochs = 5\n')
    top.write_text('extends = "middle.toml"\n[pretrain]\nsteps = 9\n')
    assert resolved(recipe=str(base)).pretrain.steps == 7
    assert resolved(recipe=str(middle)).pretrain.steps == 7
    of_mae = resolved(recipe=str(middle), method="mae")
    assert (of_mae.pretrain.steps, of_mae.pretrain.epochs) == (None, 5)
    assert "pretrain.steps" not in of_mae.sources
    assert resolved(recipe=str(top)).pretrain.steps == 9
    assert resolved(recipe=str(top), method="mae").pretrain.epochs == 5  # a method's table is above [pretrain]


def test_a_tasks_steps_replace_the_epochs_of_its_protocol():
    train = resolved({"task.train.steps": 90}, task="finetune").task("finetune").config.train
    assert (train.steps, train.epochs) == (90, None)
    both = {"task.train.steps": 90, "task.train.epochs": 3}
    with pytest.raises(InputError, match=r"tasks\.finetune\.train\.epochs 3 and steps 90 are both set"):
        resolved(both, task="finetune").task("finetune")


def test_a_step_of_another_table_is_no_length():
    assert recipe_document.other_unit("tasks.reconstruction.steps") is None
    assert recipe_document.other_unit("method.epochs") is None
    assert recipe_document.merge({"method": {"epochs": 3}}, {"method": {"steps": 4}}) == {
        "method": {"epochs": 3, "steps": 4}
    }


def test_a_shown_recipe_with_steps_is_read_again_as_the_same(tmp_path):
    settings = {
        "pretrain.steps": 40,
        "pretrain.schedule.warmup_steps": 4,
        "pretrain.schedule.kind": "multistep",
        "pretrain.schedule.milestone_steps": [10, 30],
        "tasks.finetune.train.steps": 90,
    }
    shown = describe("smoke", "simmim", settings)
    assert "steps = 40  # set on the command line" in shown
    assert "# epochs: none\n" in shown
    assert "# from step 30: lr x 0.1^2" in shown
    path = tmp_path / "shown.toml"
    path.write_text(shown)
    again, before = resolved(recipe=str(path)), resolved(settings)
    assert again.as_tables() == before.as_tables()
    assert again.task("finetune").protocol() == before.task("finetune").protocol()


def test_the_command_line_replaces_the_unit_of_a_grid_file(tmp_path):
    file = GridFile(
        ["mae"], ["knn"], "smoke", settings={"pretrain.epochs": 3}, variations={"task.train.epochs": [1, 2]}
    )
    request = _request(RunOptions(settings={"pretrain.steps": 7, "task.train.steps": 5}), file, None)
    assert dict(request.settings) == {"pretrain.steps": 7, "task.train.steps": 5}
    assert dict(request.variations) == {}
    unchanged = _request(RunOptions(settings={"pretrain.steps": "none"}), file, None)
    assert dict(unchanged.settings) == {"pretrain.epochs": 3, "pretrain.steps": "none"}


@pytest.mark.parametrize(
    ("grid", "line", "expected"),
    [
        ({"pretrain.steps": 9}, {"methods.mae.pretrain.epochs": 4}, {"mae": (4, None), "simmim": (None, 9)}),
        ({"methods.mae.pretrain.epochs": 4}, {"pretrain.steps": 9}, {"mae": (None, 9), "simmim": (None, 9)}),
        (
            {"methods.simmim.pretrain.steps": 9},
            {"methods.mae.pretrain.epochs": 4},
            {"mae": (4, None), "simmim": (None, 9)},
        ),
    ],
)
def test_a_length_for_one_method_on_the_command_line_replaces_that_for_all(tmp_path, grid, line, expected):
    file = GridFile(["mae", "simmim"], ["knn"], "smoke", settings=grid)
    settings = _request(RunOptions(settings=line), file, None).settings
    lengths = {method: resolved(settings, method=method).pretrain for method in expected}
    assert {method: (one.epochs, one.steps) for method, one in lengths.items()} == expected


@pytest.mark.parametrize(
    ("grid", "line"),
    [
        ({"task.train.steps": 90}, {"tasks.finetune.train.epochs": 2}),
        ({"tasks.finetune.train.steps": 90}, {"task.train.epochs": 2}),
    ],
)
def test_a_length_for_one_task_on_the_command_line_replaces_that_for_all(tmp_path, grid, line):
    file = GridFile(["mae"], ["finetune"], "smoke", settings=grid)
    settings = _request(RunOptions(settings=line), file, None).settings
    train = resolved(settings, task="finetune").task("finetune").config.train
    assert (train.epochs, train.steps) == (2, None)


def test_the_upper_layer_chooses_the_unit_of_the_saving_interval(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "smoke"\n[pretrain]\ncheckpoint_steps = 4\n')
    below = resolved(recipe=str(path)).pretrain
    assert (below.checkpoint_every, below.checkpoint_steps, below.saving_interval(10)) == (None, 4, 4)
    above = resolved({"pretrain.checkpoint_every": 2}, recipe=str(path)).pretrain
    assert (above.checkpoint_every, above.checkpoint_steps, above.saving_interval(10)) == (2, None, 20)
    with pytest.raises(InputError, match="checkpoint_every 2 and checkpoint_steps 4 are both set: set only one"):
        resolved({"pretrain.checkpoint_every": 2, "pretrain.checkpoint_steps": 4})
    with pytest.raises(InputError, match="checkpoint_every and checkpoint_steps are both none"):
        resolved({"pretrain.checkpoint_every": "none"})


def test_steps_are_one_departure_from_a_protocol_in_epochs():
    task = resolved({"task.train.steps": 90, "task.protocol": "mae-vit-base"}, task="finetune").task("finetune")
    departed = departures(task)
    assert departed["train.steps"] == 90
    assert "train.epochs" not in departed
