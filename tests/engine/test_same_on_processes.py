"""The same recipe and seed on one, two and four processes: the same losses, and nearly the same weights."""

from __future__ import annotations

import os

import pytest
import torch

from helpers.noting import INPUT, train
from helpers.two_processes import exit_codes
from mimbench.compute.blocks import marked_blocks
from mimbench.contract import StepOutput
from mimbench.encoders.convnet import ResNet
from mimbench.encoders.vit import ViT
from mimbench.engine.pretrain import TrainableMethod
from mimbench.errors import RunError
from mimbench_methods.ibot import IBOT
from mimbench_methods.simmim import SimMIM
from mimbench_methods.spark import SparK

STEPS = 20
COLOURS = INPUT.model_copy(update={"flip": 0.5, "color_jitter": 0.4})
VIT = {"patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2, "drop_path": 0.4}
IBOT_OPTIONS = {
    "local_crops": 2,
    "local_size": 4,
    "out_dim": 32,
    "hidden_dim": 32,
    "bottleneck_dim": 16,
    "freeze_epochs": 2,
    "mask": "random",
}


def build(case):
    torch.manual_seed(0)
    if case == "spark":  # batch norms
        return SparK(
            SparK.Config(decoder_dim=16),
            ResNet(ResNet.Config(block="basic", dims=(8, 16), depths=(1, 1)), image_size=32, in_channels=1),
        )
    encoder = ViT(ViT.Config(**VIT), image_size=8, in_channels=1)
    if case == "ibot":  # views, and centres of the teacher
        return IBOT(IBOT.Config(**IBOT_OPTIONS), encoder)
    return SimMIM(SimMIM.Config(masking="block", mask_patch_size=2), encoder)  # masks of uneven size


def fit(case, folder, until=None, **options):
    """Losses of each step, and the weights. Of spark and ibot a batch is one micro-batch."""
    method = build(case)
    view = COLOURS.model_copy(update={"image_size": method.encoder.image_size})
    trainable = TrainableMethod(method, type(method).views(method.config, view), channels=1, batched=True)
    accumulate = 2 if case == "simmim" else 1
    options |= {"batch_size": 40, "accumulate": accumulate, "base_lr": 1e-3, "clip_grad": 1.0}
    report, _ = train(trainable, folder, epochs=STEPS, until=until, **options)
    return report.loss, {name: value.clone() for name, value in method.state_dict().items()}


def compare(case, trained, expected):
    """Batch norms of small batches magnify rounding: weights that are changed by 1e-7 change spark's losses as much."""
    losses, alone = torch.tensor(trained[0]), torch.tensor(expected[0])
    exact = 3 if case == "spark" else STEPS
    torch.testing.assert_close(losses[:exact], alone[:exact], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses, alone, rtol=1e-3, atol=0)
    for name, value in () if case == "spark" else expected[1].items():
        torch.testing.assert_close(
            trained[1][name], value, rtol=1e-3, atol=2e-4, msg=lambda text, name=name: name + text
        )


class ReadsABlock(SimMIM):
    """Its loss uses a weight of a block that does not run: by itself, or together with a tensor."""

    with_a_tensor = False

    def step(self, batch, generator):
        output = super().step(batch, generator)
        weight = next(next(marked_blocks(self)).parameters())
        if self.with_a_tensor:
            weight = weight * torch.ones(weight.shape)
        return StepOutput(output.loss + weight.square().mean())


def refuse_what_reads_a_block(folder):
    for with_a_tensor in (False, True):
        method = ReadsABlock(SimMIM.Config(mask_patch_size=2), ViT(ViT.Config(**VIT), image_size=8, in_channels=1))
        method.with_a_tensor = with_a_tensor
        trainable = TrainableMethod(method, (INPUT,), channels=1, batched=True)
        with pytest.raises(RunError, match=r'the training step .*uses weights .*outside .* set parallel to "ddp"'):
            train(trainable, folder / str(with_a_tensor), parallel="fsdp")


def on_rank(rank, port, world, folder, failures):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    expected = torch.load(folder / "alone.pt")
    try:
        for case in ("simmim", "ibot", "spark") if world == 2 else ("simmim",):
            compare(case, fit(case, folder / f"{case}{world}"), expected[case])
        if world == 2:
            compare("simmim", fit("simmim", folder / "alone first"), expected["simmim"])
            fit("simmim", folder / "together first", until=9)
            for case in ("simmim", "ibot"):
                compare(case, fit(case, folder / f"{case} split", parallel="fsdp"), expected[case])
            compare("simmim", fit("simmim", folder / "alone first, then split", parallel="fsdp"), expected["simmim"])
            fit("simmim", folder / "split first", until=9, parallel="fsdp")
            refuse_what_reads_a_block(folder / "reads a block")
    except AssertionError as error:
        failures.put(f"rank {rank} of {world}: {error}")
    torch.distributed.destroy_process_group()


def start(world, folder):
    codes, failures = exit_codes(world, on_rank, world, folder, seconds=480)
    assert codes == [0] * world
    assert not failures, failures[0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folder with the losses and weights of one process, and a training that it leaves unfinished."""
    folder = tmp_path_factory.mktemp("same")
    torch.save({case: fit(case, folder / case) for case in ("simmim", "ibot", "spark")}, folder / "alone.pt")
    for name in ("alone first", "alone first, then split"):
        fit("simmim", folder / name, until=9)
    return folder


def test_two_processes_train_as_one_and_each_goes_on_with_the_other(alone):
    start(2, alone)
    for name in ("together first", "split first"):
        compare("simmim", fit("simmim", alone / name), torch.load(alone / "alone.pt")["simmim"])


def test_four_processes_train_as_one(alone):
    start(4, alone)
