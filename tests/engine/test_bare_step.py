"""Steps without a training around them compute as those of a training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mimbench.contract import StepOutput, TrainConfig
from mimbench.engine import bare_step
from mimbench.engine.acceleration import matrix_precision
from mimbench.engine.pretrain import TrainableMethod

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Noting(nn.Module):
    """A convolution that notes whether products are in TF32, forward and backward, and how kernels lie in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.notes = []
        self.conv.weight.register_hook(lambda gradient: self._note("backward"))

    def _note(self, when):
        is_last = self.conv.weight.is_contiguous(memory_format=torch.channels_last)
        self.notes.append((when, torch.backends.cuda.matmul.allow_tf32, is_last))

    def step(self, batch, generator):
        self._note("forward")
        return StepOutput(self.conv(torch.ones(1, 3, 5, 5)).square().mean())


@pytest.mark.parametrize(("precision", "channels_last"), [("fp32", False), ("tf32", True)])
def test_a_step_has_the_precision_and_memory_format_of_the_config(monkeypatch, precision, channels_last):
    monkeypatch.setattr(bare_step, "pick_precision", lambda config, device: precision)
    monkeypatch.setattr(bare_step, "matrix_precision", lambda precision, device: matrix_precision(precision, CUDA))
    method = Noting()
    model = TrainableMethod(method, (), channels=3, batched=True)
    monkeypatch.setattr(TrainableMethod, "training_step", lambda self, *arguments: method.step(*arguments))
    config = TrainConfig(epochs=1, batch_size=1, base_lr=1e-3, channels_last=channels_last)
    before = torch.backends.cuda.matmul.allow_tf32
    weight = method.conv.weight.clone()
    bare_step.BareStep(model, config, CPU)((torch.zeros(1), torch.zeros(1)))
    expected = precision == "tf32"
    assert method.notes == [("forward", expected, channels_last), ("backward", expected, channels_last)]
    assert torch.backends.cuda.matmul.allow_tf32 == before
    assert not torch.equal(method.conv.weight, weight)
