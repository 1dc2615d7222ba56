""" "none" leaves out an optional value: on the command line, in a recipe, and over a protocol."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel

from mimbench.contract.validation import validate
from mimbench.errors import InputError
from mimbench.recipe import document as recipe_document
from mimbench.recipe.resolve import resolve
from mimbench.recipe.show import describe


class Inner(BaseModel):
    clip: float | None = 5.0


class Table(BaseModel):
    rate: float | None = 1.0
    name: str | None = "given"
    kind: Literal["none", "some"] | None = "some"
    text: str = ""
    inner: Inner = Inner()
    maybe: Inner | None = None


def test_none_is_for_fields_that_may_be_none_and_have_no_such_word():
    table = validate(
        Table,
        {"rate": "none", "name": "none", "kind": "none", "text": "none", "inner": {"clip": "none"}},
        "table",
    )
    assert (table.rate, table.name, table.kind, table.text) == (None, None, "none", "none")
    assert table.inner.clip is None
    assert validate(Table, {"maybe": {"clip": "none"}}, "table").maybe.clip is None
    assert validate(Table, {"maybe": "none"}, "table").maybe is None


def test_a_value_that_must_be_there_is_not_left_out():
    recipe = recipe_document.read("smoke")
    with pytest.raises(InputError, match=r"pretrain\.batch_size = 'none'"):
        resolve("smoke", recipe, "simmim", {"pretrain.batch_size": "none"}, None)


@pytest.mark.parametrize("words", ["clip_grad=none", 'clip_grad="none"'])
def test_a_presets_value_is_left_out_from_the_command_line(words):
    settings = recipe_document.parse_assignments([f"pretrain.{words}"])
    recipe = resolve("smoke", recipe_document.read("smoke"), "simmim", settings, None)
    assert recipe_document.read("smoke")["pretrain"]["clip_grad"] == 5.0
    assert recipe.pretrain.clip_grad is None


def test_what_is_left_out_of_a_protocol_stays_out_when_shown_and_read_again(tmp_path):
    settings = {"tasks.finetune.train.clip_grad": "none", "pretrain.clip_grad": "none"}
    text = describe("imagenet-vit-base", "simmim", settings)
    assert text.count('clip_grad = "none"  # set on the command line') == 2
    path = tmp_path / "again.toml"
    path.write_text(text)
    again = resolve(str(path), recipe_document.read(str(path)), "simmim", {}, None)
    assert again.pretrain.clip_grad is None
    assert again.task("finetune").config.train.clip_grad is None
    assert again.task("finetune").config.train.layer_decay == 0.65


def test_a_users_recipe_leaves_out_what_it_extends(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "smoke"\n[pretrain]\nclip_grad = "none"\n')
    assert resolve(str(path), recipe_document.read(str(path)), "simmim", {}, None).pretrain.clip_grad is None
