"""No step makes the host wait for a CUDA device: shown on the CPU by the operations, and on CUDA by torch itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers.waits import waits
from mimbench.engine.update import UpdateWrapper
from mimbench.recipe.document import read
from mimbench.recipe.resolve import resolve
from mimbench.registry import methods
from mimbench.testing.method_subject import MethodSubject

READS = {"greenmim": "which visible tokens share a window is worked out on the host"}
"""Method -> why its step reads from the device."""


def names() -> list[str]:
    """Methods of images that train. tests/test_every_task.py runs those of clips."""
    return [name for name in methods.names() if methods.load(name).pretrains and methods.load(name).takes_images]


def subject_of(name: str) -> MethodSubject:
    """The method as the smoke recipe has it."""
    recipe = resolve("smoke", read("smoke"), name, {}, None)
    method, encoder = recipe.method_class(), recipe.encoder_class()
    return MethodSubject(method, recipe.method_config, encoder, recipe.encoder_config, recipe.input, 1)


@pytest.mark.parametrize("name", names())
def test_a_step_of_a_method(name, monkeypatch):
    subject = subject_of(name)
    method, batch = subject.build(), subject.batch()
    subject.step(method, batch).loss.backward()  # tables that are computed once
    method.before_update(0.0)
    method.after_step(0.1)
    with waits(monkeypatch) as places:
        subject.step(method, batch).loss.backward()
        method.before_update(0.1)
        method.after_step(0.2)
    assert places == [] or name in READS
    assert places or name not in READS


@pytest.mark.parametrize("clip_each", [False, True])
def test_an_update(clip_each, monkeypatch):
    layer = nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    wrapper = UpdateWrapper(
        optimizer, before_update=lambda: None, bf16_on=None, clip_each=clip_each, clip_grad={"max_norm": 0.1}
    )
    with waits(monkeypatch) as places:
        wrapper.update_params(layer(torch.ones(2, 4)).square().mean())
    assert places == []


def test_the_counter_finds_what_waits(monkeypatch):
    x = torch.arange(3.0)
    with waits(monkeypatch) as places:
        x.sum().item()
        x[x > 1]
        bool((x > 1).any())
        x.tolist()
        torch.tensor([1.0])
        x.nonzero()
    assert [place.partition(" ")[0] for place in places] == [
        *("_local_scalar_dense", "index", "_local_scalar_dense", "tolist", "lift_fresh", "nonzero")
    ]


@pytest.mark.cuda
@pytest.mark.parametrize("name", [name for name in names() if name not in READS])
def test_a_step_of_a_method_on_a_gpu(name):
    subject = subject_of(name)
    method, batch = subject.build().cuda(), subject.batch()
    views = tuple(view.cuda() for view in batch.views)
    batch = type(batch)(views, None if batch.labels is None else batch.labels.cuda(), batch.progress)
    for seed in range(2):
        generator = torch.Generator("cuda").manual_seed(seed)
        subject.begin_step(method, 0.0)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if seed else "default")
        try:
            method.step(batch, generator).loss.backward()
            method.after_step(0.1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
