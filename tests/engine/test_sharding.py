"""`parallel = "fsdp"` in one process: what is refused, and what is split. Trainings: `test_same_on_processes.py`."""

from __future__ import annotations

import threading

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from helpers.noting import Probe, train
from helpers.refusals import refused
from mimbench.compute.blocks import mark_blocks, run_block, run_within_hooks, set_runner
from mimbench.contract import TrainConfig
from mimbench.engine.sharding import copy_to_split, describe_use, separate_blocks, whole_norms
from mimbench.errors import InputError


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"optimizer": "lamb"}, "lamb needs their whole norms"),
        ({"optimizer": "lars"}, "lars needs their whole norms"),
        ({"compile": "cuda-graphs"}, "needs weights that stay in their place"),
        ({"channels_last": True}, "splits contiguous weights only"),
        ({"auto_batch": True}, "set accumulate"),
    ],
)
def test_what_cannot_be_combined_is_refused(options, problem):
    with pytest.raises(ValidationError, match=problem):
        TrainConfig(epochs=1, batch_size=8, base_lr=1.0, parallel="fsdp", **options)


def test_it_enters_no_fingerprint():
    split, whole = (TrainConfig(epochs=1, batch_size=8, base_lr=1.0, parallel=name) for name in ("fsdp", "ddp"))
    assert split.shaping() == whole.shaping()


def test_one_process_is_refused_in_one_line(quick, tmp_path):
    for table in ("pretrain", "task.train"):
        run = ["run", "--method", "mae", "--task", "finetune", "--recipe", "smoke", "--set", f"{table}.parallel=fsdp"]
        refused(quick(*run), f"{table}.parallel=fsdp splits a training over processes, and there is one")
    with pytest.raises(InputError, match="and there is one"):
        train(Probe(), tmp_path, parallel="fsdp")


def test_models_that_cannot_be_split_or_copied_are_refused():
    model = Probe()
    model.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(InputError, match=r"a training: .* cannot split scale, which has no dimension"):
        copy_to_split(model, "a training")
    model = Probe().half()
    model.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(InputError, match="weights of the types float16 and float32"):
        copy_to_split(model, "a training")
    model = Probe()
    model.lock = threading.Lock()
    with pytest.raises(InputError, match=r"Probe, which cannot be copied .*; set parallel to"):
        copy_to_split(model, "a training")


def test_blocks_that_share_a_weight_with_others_are_not_split_by_themselves():
    model = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    mark_blocks(model)
    model[2].weight = model[1].weight
    assert separate_blocks(model) == [model[0]]


def test_other_errors_are_left_as_they_are():
    assert describe_use(RuntimeError("aten.add: got mixed torch.Tensor and DTensor")).startswith("the training step")
    assert not describe_use(RuntimeError("shapes differ"))


def test_norms_of_whole_tensors_are_those_of_torch():
    tensors = [torch.randn(3, 4), torch.zeros(0, 2)]
    assert torch.equal(torch.stack(whole_norms(tensors)), torch.stack([tensor.norm() for tensor in tensors]))


class Noting:
    """A runner that notes what it runs."""

    is_paused = False

    def __init__(self):
        self.ran = []

    def __call__(self, function, block, *inputs, **named):
        self.ran.append((function, vars(block)["weight_is_there"]))
        return function(block, *inputs, **named)


def halved(block, x):
    return nn.functional.linear(x, block.weight) / 2


@pytest.mark.parametrize("by", [None, halved])
@pytest.mark.parametrize("compiled", [False, True])
def test_hooks_surround_whatever_runs_a_block(by, compiled):
    """As FSDP's hooks, which gather the weights, must: also around a function that runs the block's parts."""
    block, runner = nn.Linear(3, 3, bias=False), Noting()
    mark_blocks([block])
    run_within_hooks(block)
    states = []
    block.register_forward_pre_hook(lambda *_: vars(block).update(weight_is_there=True))
    block.register_forward_hook(lambda *_: states.append(vars(block).pop("weight_is_there")))
    if compiled:
        set_runner(block, runner)
    x = torch.randn(2, 3)
    expected = nn.functional.linear(x, block.weight)
    assert torch.equal(run_block(block, x, by=by), expected / 2 if by else expected)
    assert torch.equal(block(x), expected)
    assert states == [True, True]
    assert "forward" not in vars(block)
    assert runner.ran == ([(by or nn.Linear.forward, True), (nn.Linear.forward, True)] if compiled else [])
