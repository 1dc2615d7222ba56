"""`mimbench show`."""

from __future__ import annotations


def test_show_recipe_prints_values_and_arithmetic(quick):
    shown = quick("show", "recipe", "smoke").stdout
    assert "[pretrain]" in shown
    assert "lr = base_lr" in shown
