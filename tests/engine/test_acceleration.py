"""What a training compiles, which attention it takes, and that its report says so."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from helpers.noting import CPU, Probe, train
from mimbench.compute.blocks import mark_blocks
from mimbench.compute.compiling import OPTIONS
from mimbench.contract import StepOutput, TrainConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.engine.acceleration import (
    REPAYS_AFTER,
    Acceleration,
    accelerated,
    choose_acceleration,
    has_dropout,
    matrix_precision,
)
from mimbench.engine.device import pick_precision
from mimbench.errors import InputError

CUDA = torch.device("cuda")
BASE = {"epochs": 1, "batch_size": 8, "base_lr": 1e-3}


@pytest.mark.parametrize(
    ("options", "device", "length", "expected"),
    [
        ({}, CPU, 10**6, Acceleration(False, False, None)),
        ({}, CUDA, REPAYS_AFTER - 1, Acceleration(False, False, None)),
        ({}, CUDA, REPAYS_AFTER, Acceleration(True, False, "plain")),
        ({"compile": "off"}, CUDA, 10**6, Acceleration(False, False, None)),
        ({"compile": "on"}, CPU, 1, Acceleration(True, False, None)),
        ({"compile": "on", "attention": "flex"}, CUDA, 1, Acceleration(True, False, "flex")),
        ({"compile": "cuda-graphs"}, CUDA, 1, Acceleration(True, True, "plain")),
        ({"attention": "aligned"}, CPU, 1, Acceleration(False, False, "aligned")),
    ],
)
def test_what_the_options_mean(options, device, length, expected):
    assert choose_acceleration(TrainConfig(**BASE, **options), device, length) == expected


@pytest.mark.parametrize(
    ("options", "device", "words"),
    [
        ({}, CPU, 'compile = "cuda-graphs" needs a CUDA device; use "on" or "auto" here'),
        ({"accumulate": 2}, CUDA, "cannot accumulate gradients over 2 micro-batches.*set accumulate = 1"),
    ],
)
def test_cuda_graphs_where_they_cannot_be(options, device, words):
    with pytest.raises(InputError, match=words):
        choose_acceleration(TrainConfig(**BASE, compile="cuda-graphs", **options), device, 1)


def test_neither_option_is_part_of_a_fingerprint():
    plain = TrainConfig(**BASE).shaping()
    assert TrainConfig(**BASE, compile="on", attention="flex").shaping() == plain
    assert TrainConfig(**BASE, precision="tf32").shaping() != plain


class Deep(nn.Module):
    """Two blocks with drop path, on noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = ViTConfig(patch_size=4, embed_dim=8, depth=2, num_heads=2, drop_path=0.3)
        self.encoder = ViT(config, image_size=8, in_channels=1)

    def training_step(self, batch, generator):
        features = self.encoder.encode(self.encoder.embed(batch[0].float() / 255))
        return StepOutput((features - torch.rand(features.shape, generator=generator)).square().mean())


def test_a_compiled_training_is_the_same_and_says_that_it_was_compiled(tmp_path, monkeypatch):
    monkeypatch.setitem(OPTIONS, "kernels", {"backend": "aot_eager"})
    eager, compiled = Deep(), Deep()
    report, _ = train(eager, tmp_path / "eager", epochs=2)
    assert report.compiled == ""
    assert train(Deep(), tmp_path / "sdpa", epochs=1, attention="plain")[0].compiled == "attention plain"
    report_compiled, printed = train(compiled, tmp_path / "compiled", epochs=2, compile="on")
    assert report_compiled.compiled == "1 kind of blocks compiled"
    assert report_compiled.loss == pytest.approx(report.loss, rel=1e-4)
    for name, value in compiled.state_dict().items():
        torch.testing.assert_close(value, eager.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert "uncompiled" not in printed


def test_a_training_without_blocks_compiles_nothing(tmp_path):
    assert train(Probe(), tmp_path, compile="on")[0].compiled == ""


class Breaking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        torch._dynamo.graph_break()
        return self.layer(x)


def test_auto_prints_what_cannot_be_compiled():
    network, output = nn.Sequential(Breaking(), Breaking()), io.StringIO()
    mark_blocks(network)
    console = Console(file=output)
    with accelerated(network, Acceleration(True, False, None), falls_back=True, label="t", console=console) as describe:
        network(torch.ones(1, 4))
        assert describe() == "1 partly or wholly uncompiled"
    assert output.getvalue().startswith("t: blocks run uncompiled: torch cannot compile Breaking (")
    assert output.getvalue().count("\n") == 1


def test_tf32_is_for_gpus_that_have_it(monkeypatch):
    config = TrainConfig(**BASE, precision="tf32")
    with pytest.raises(InputError, match=r'"tf32" needs an NVIDIA GPU of the Ampere generation.*use "fp32"'):
        pick_precision(config, CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(InputError, match="Ampere"):
        pick_precision(config, CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert pick_precision(config, CUDA) == "tf32"


@pytest.mark.parametrize(("precision", "expected"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_products_on_cuda_round_as_the_precision_says_and_then_as_before(precision, expected):
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    with matrix_precision(precision, CUDA):
        assert [backend.allow_tf32 for backend in backends] == [expected, expected]
    assert [backend.allow_tf32 for backend in backends] == before


def test_dropout_is_not_compiled():
    """Its random numbers would differ, and compile enters no fingerprint."""
    auto = choose_acceleration(TrainConfig(**BASE), torch.device("cuda"), REPAYS_AFTER, has_dropout=True)
    assert auto == Acceleration(compiles=False, cuda_graphs=False, form=None)
    for options, named in (({"compile": "on"}, "compile = 'on'"), ({"attention": "plain"}, "attention = 'plain'")):
        with pytest.raises(InputError, match=f"{named} would change the numbers of a model with dropout"):
            choose_acceleration(TrainConfig(**BASE, **options), torch.device("cuda"), 1, has_dropout=True)
    assert has_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    assert not has_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)))


def test_flex_attention_is_refused_without_a_cuda_device():
    with pytest.raises(InputError, match="trains on CUDA only; leave it out"):
        choose_acceleration(TrainConfig(**BASE, attention="flex"), torch.device("cpu"), 1)
