"""Masks of a GPU's generator that are drawn on the CPU: they follow from it, and each call draws others."""

from __future__ import annotations

import pytest
import torch

from mimbench.masks import block_mask, mixed_ratio_mask, multi_block_mask
from mimbench.masks import blocks as blocks_module
from mimbench.masks.host import host_generator, to_device


class OnDevice:
    """A generator that says it is on a GPU, and cannot draw there."""

    device = torch.device("cuda")

    def __init__(self, seed: int) -> None:
        self.inner = torch.Generator().manual_seed(seed)

    def get_state(self):
        return self.inner.get_state()


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Draw from the generator inside, and leave the masks on the CPU."""
    rand = torch.rand

    def draw(*shape, generator=None, device=None):
        return rand(*shape, generator=getattr(generator, "inner", generator))

    monkeypatch.setattr(torch, "rand", draw)
    for module in ("blocks", "multi_block", "mixed"):
        monkeypatch.setattr(f"mimbench.masks.{module}.to_device", lambda values, device: values)


def test_a_generator_of_the_cpu_is_used_as_it_is():
    generator = torch.Generator().manual_seed(1)
    assert host_generator(generator) is generator


def test_a_generator_on_a_device_gives_another_one_with_each_call():
    seeds = [host_generator(generator).initial_seed() for generator in (OnDevice(1), OnDevice(1), OnDevice(2))]
    assert seeds[0] == seeds[1] != seeds[2]
    generator = OnDevice(1)
    assert len({host_generator(generator).initial_seed() for _ in range(4)}) == 4


def test_masks_of_a_device_follow_from_its_generator():
    draws = (
        lambda generator: block_mask(4, (8, 8), 20, generator, exact=True),
        lambda generator: multi_block_mask(4, (8, 8), generator, min_context=4).targets,
        lambda generator: mixed_ratio_mask(4, (8, 8), (0.4,), (0.1,), generator),
        lambda generator: mixed_ratio_mask(4, (8, 8), (0.4,), (0.1,), generator, kind="random"),
    )
    for draw in draws:
        assert torch.equal(draw(OnDevice(3)), draw(OnDevice(3)))
        assert not torch.equal(draw(OnDevice(3)), draw(OnDevice(4)))
        generator = OnDevice(3)
        assert not torch.equal(draw(generator), draw(generator))


@pytest.mark.cuda
def test_masks_on_a_gpu_wait_for_nothing(monkeypatch):
    monkeypatch.undo()
    generator = torch.Generator("cuda").manual_seed(0)
    block_mask(4, (8, 8), 20, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        mask = block_mask(4, (8, 8), 20, generator, exact=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert mask.is_cuda
    assert mask.sum((1, 2)).tolist() == [20] * 4
    assert blocks_module.to_device is to_device
