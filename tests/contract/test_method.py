"""The base class of methods: parts that are not stored, masks of other structures."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mimbench.contract import Config, InputConfig, Method, NotSupported, StepOutput
from mimbench.encoders.vit import ViT
from mimbench.engine.pretrain import TrainableMethod


class Distill(Method):
    """Has a frozen teacher that its constructor makes."""

    name, version = "distill", "1"
    not_stored = ("teacher.",)

    def __init__(self, config, encoder, level=2.0):
        super().__init__(config, encoder)
        self.head = nn.Linear(4, 4)
        self.teacher = nn.Linear(4, 4).requires_grad_(False)
        self.teacher.register_buffer("scale", torch.tensor(level))
        self.teacher.register_buffer("cache", torch.zeros(2), persistent=False)
        nn.init.constant_(self.teacher.weight, level)

    def step(self, batch, generator):
        return StepOutput(self.head.weight.sum())


def encoder():
    return ViT(ViT.Config(patch_size=2, embed_dim=8, depth=1, num_heads=2), image_size=8, in_channels=1)


def test_what_is_not_stored_is_in_no_state_and_stays_as_it_was_made():
    trained, fresh = Distill(Config(), encoder()), Distill(Config(), encoder(), level=3.0)
    assert not any(name.startswith("teacher") for name in trained.state_dict())
    fresh.load_state_dict(trained.state_dict(), strict=True)
    assert torch.equal(fresh.head.weight, trained.head.weight)
    assert float(fresh.teacher.weight[0, 0]) == float(fresh.teacher.scale) == 3.0
    outer, other = nn.ModuleDict({"method": trained}), nn.ModuleDict({"method": copy.deepcopy(fresh)})
    assert "method.head.weight" in outer.state_dict()
    assert "method.teacher.weight" not in outer.state_dict()
    other.load_state_dict(outer.state_dict(), strict=True)
    assert float(other["method"].teacher.scale) == 3.0


def test_everything_else_is_still_loaded_strictly():
    method = Distill(Config(), encoder())
    state = method.state_dict()
    del state["head.bias"]
    with pytest.raises(RuntimeError, match=r"head\.bias"):
        method.load_state_dict(state, strict=True)


def test_parts_that_a_method_does_not_have_are_named():
    method = Distill(Config(), encoder())
    images, mask = torch.zeros(2, 1, 8, 8), torch.zeros(2, 4, 4, dtype=torch.bool)
    for call, words in (
        (lambda: method.sample_mask(2, torch.Generator()), "has no masks"),
        (lambda: method.target(images), "has no target"),
        (lambda: method.predict(images, mask), "predicts nothing"),
        (lambda: method.loss(images, images, mask), "has no loss"),
    ):
        with pytest.raises(NotSupported, match=f"method 'distill' {words}"):
            call()


def test_only_a_bool_grid_counts_as_masked_cells():
    method = Distill(Config(), encoder())
    grid = torch.ones(2, 4, 4, dtype=torch.bool)
    assert method.masked_cells(grid) is grid
    for other in (grid.float(), grid[0], (grid, grid), [torch.arange(3)], None):
        assert method.masked_cells(other) is None


def test_progress_is_set_even_if_before_step_is_overridden():
    class Cooling(Distill):
        def before_step(self, progress):
            self.temperature = 1 - self.progress

    method = Cooling(Config(), encoder())
    trainable = TrainableMethod(method, [InputConfig(image_size=8, mean=(0.5,), std=(0.5,))], channels=1, batched=True)
    assert method.progress == 1
    trainable.before_step(0.25, 0)
    assert (method.progress, method.temperature) == (0.25, 0.75)
