"""One compiled graph serves all blocks of a kind, with other drop path rates, and computes what the eager blocks do."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from mimbench.compute.blocks import mark_blocks, marked_blocks, uncompiled
from mimbench.compute.compiling import compiled_blocks
from mimbench.compute.kinds import MOST_GRAPHS
from mimbench.contract import Encoder
from mimbench.encoders.blocks import cross_blocks, transformer_blocks
from mimbench.encoders.convnet import ConvNeXt, ConvNeXtConfig, ResNet, ResNetConfig, convnext_blocks
from mimbench.encoders.inverse_swin import InverseSwin
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.timm_model import TimmConfig, TimmModel
from mimbench.encoders.towers import PatchViT
from mimbench.encoders.vit import ViT, ViTConfig

ROUNDING = {"rtol": 1e-4, "atol": 2e-5}


class Graphs:
    """A backend of torch.compile that counts the graphs. They run through autograd's tracing, without code generation."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        from torch._dynamo.backends.debugging import aot_eager

        self.count += 1
        return aot_eager(graph, inputs)


@pytest.fixture(autouse=True)
def recompilation_is_an_error():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


def vit(**options) -> ViT:
    config = {"patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2, "drop_path": 0.4} | options
    return ViT(ViTConfig(**config), image_size=16, in_channels=3)


def swin(**options) -> Swin:
    config = {"patch_size": 2, "embed_dim": 8, "depths": (4, 4), "num_heads": (1, 2), "window": 4, "drop_path": 0.4}
    return Swin(SwinConfig(**config | options), image_size=32, in_channels=3)


def convnext() -> ConvNeXt:
    config = ConvNeXtConfig(patch_size=2, dims=(8, 16), depths=(3, 3), layer_scale=None, grn=True, drop_path=0.4)
    return ConvNeXt(config, image_size=16, in_channels=3)


def resnet() -> ResNet:
    config = ResNetConfig(block="basic", dims=(8, 16), depths=(3, 3), drop_path=0.4)
    return ResNet(config, image_size=32, in_channels=3)


def timm_model(name: str = "vit_tiny_patch16_224", **arguments) -> TimmModel:
    config = TimmConfig(model=name, drop_path=0.4, arguments=arguments)
    return TimmModel(config, image_size=32, in_channels=3)


def timm_vit() -> TimmModel:
    return timm_model(patch_size=8, embed_dim=16, num_heads=2, depth=4)


ENCODERS = {
    # encoder, kinds of blocks
    "vit, shared bias": (vit, 1),
    "vit, bias per block": (lambda: vit(position="relative-per-block", layer_scale=0.1), 1),
    "vit, sincos": (lambda: vit(position="sincos", registers=2), 1),
    "vit, learned and relative": (lambda: vit(position="learned-and-relative"), 1),
    "vit, rope": (lambda: vit(position="rope"), 1),
    "swin": (swin, 4),  # two stages, with and without shifted windows
    "swin, no shift": (lambda: swin(shift=False), 2),
    "convnext": (convnext, 2),
    "resnet": (resnet, 4),  # two stages, whose first block has a shortcut
    "timm": (timm_vit, 1),
}


def run(network: nn.Module, function: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradients of a pass in training, the random numbers seeded."""
    torch.manual_seed(3)
    network.zero_grad()
    output = function()
    (output * torch.linspace(-1, 1, output[0].numel()).view_as(output[0])).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None}
    return output.detach(), gradients


def check(network: nn.Module, call: Callable[[nn.Module], Tensor], kinds: int) -> None:
    """Graphs in training and evaluation: one per kind and mode. Results as without compilation."""
    for parameter in network.parameters():
        if parameter.ndim == 1:  # a bias or scale that is 0 would hide errors
            nn.init.normal_(parameter, std=0.2)
    network.train()
    rates = {module.drop_prob for module in network.modules() if getattr(module, "drop_prob", 0)}
    state = copy.deepcopy(network.state_dict())
    expected, expected_gradients = run(network, lambda: call(network))
    network.load_state_dict(state)  # running statistics of batch norms
    graphs, modules = Graphs(), list(network.modules())
    with compiled_blocks(network, {"backend": graphs}) as found:
        output, gradients = run(network, lambda: call(network))
        run(network, lambda: call(network))
        assert len(found) == kinds
        assert graphs.count == kinds
        network.load_state_dict(state)
        network.eval()
        with torch.no_grad():
            evaluated = [call(network) for _ in range(2)][0]
        assert graphs.count == 2 * kinds
    assert list(network.modules()) == modules
    assert {module.drop_prob for module in network.modules() if getattr(module, "drop_prob", 0)} == rates
    with torch.no_grad():
        torch.testing.assert_close(evaluated, call(network), **ROUNDING)
    torch.testing.assert_close(output, expected, **ROUNDING)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, **ROUNDING, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder(name):
    build, kinds = ENCODERS[name]
    torch.manual_seed(0)
    encoder: Encoder = build()
    images = torch.randn(3, 3, encoder.image_size, encoder.image_size)
    rates = {getattr(module, "drop_prob", 0) for module in encoder.modules()}
    assert len(rates - {0}) >= 3
    check(encoder, lambda encoder: encoder.encode(encoder.embed(images)), kinds)
