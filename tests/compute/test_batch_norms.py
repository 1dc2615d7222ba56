"""Batch norms over ranks: two processes with half of a batch each do what one does with all of it."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from helpers.two_processes import run_in_two
from mimbench.compute.batch_norms import SyncedBatchNorm, synchronise_batch_norms
from mimbench.encoders.convnet import ResNet
from mimbench.testing.lockstep import Lockstep
from mimbench_methods.spark import SparK


def network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.BatchNorm2d(4))
    nn.init.normal_(made[1][0].weight)
    return made


def test_in_a_single_process_nothing_changes():
    plain, synced = network(), network()
    synchronise_batch_norms(synced)
    assert sum(isinstance(module, SyncedBatchNorm) for module in synced.modules()) == 2
    assert list(synced.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(synced(images), plain(images))
    for name, value in plain.state_dict().items():
        assert torch.equal(synced.state_dict()[name], value), name
    assert torch.equal(synced.eval()(images), plain.eval()(images))


@pytest.mark.parametrize(
    "make", [lambda: BatchNormAct2d(4), lambda: nn.BatchNorm1d(4), lambda: nn.BatchNorm3d(4, momentum=None)]
)
def test_every_kind_of_batch_norm_takes_the_statistics_of_two_processes(make):
    torch.manual_seed(0)
    plain = make()
    nn.init.normal_(plain.weight)
    shared = [copy.deepcopy(plain) for _ in range(2)]
    axes = {nn.BatchNorm1d: (), nn.BatchNorm3d: (2, 3, 3)}.get(type(plain), (3, 3))
    images = 3 * torch.randn(6, 4, *axes) + 1
    expected = plain(images)

    def norm(rank):
        synchronise_batch_norms(shared[rank])
        return shared[rank](images.chunk(2)[rank])

    torch.testing.assert_close(torch.cat(Lockstep(2).run(norm)), expected)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(shared[0].state_dict()[name], value)
    torch.testing.assert_close(shared[0].eval()(images), plain.eval()(images))


def spark():
    torch.manual_seed(0)
    config = ResNet.Config(block="basic", dims=(8, 16), depths=(1, 1))
    method = SparK(SparK.Config(decoder_dim=16), ResNet(config, image_size=32, in_channels=3)).double()
    for norm in (module for module in method.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
    return method


def result(method, images, mask):
    """Loss, gradients and running statistics after one step."""
    loss = method(images, mask).loss
    loss.backward()
    grads = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **grads, **{name: b for name, b in method.named_buffers() if "running" in name}}


def compare(rank, port, failures):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    method = spark()
    generator = torch.Generator().manual_seed(1)
    images, mask = torch.randn(4, 3, 32, 32, generator=generator).double(), method.sample_mask(4, generator)
    images[:2] += 2.0  # the ranks' own statistics differ
    whole = result(method, images, mask)
    torch.distributed.init_process_group("gloo")
    try:
        half = slice(2 * rank, 2 * rank + 2)
        shared = result(spark(), images[half], mask[half])
        assert shared.keys() == whole.keys()
        for name, value in shared.items():
            if "running" not in name:  # equal on both ranks; of losses and gradients the mean counts
                torch.distributed.all_reduce(value)
                value /= 2
            torch.testing.assert_close(
                value, whole[name], rtol=1e-9, atol=1e-12, msg=lambda text, name=name: name + text
            )
    except AssertionError as error:
        failures.put(f"rank {rank}: {error}")
    torch.distributed.destroy_process_group()


def test_two_processes_take_spark_through_the_same_step():
    run_in_two(compare, seconds=240)
