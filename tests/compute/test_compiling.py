"""One compiled graph serves all blocks of a kind, with other drop path rates, and computes what the eager blocks do."""

from __future__ import annotations

import copy
import shutil
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
from mimbench.errors import RunError
from mimbench.parts.rotary_predictor import RotaryPredictor

ROUNDING = {"rtol": 1e-4, "atol": 2e-5}


class Graphs:
    """A backend of torch.compile that counts its graphs, and traces forward and backward pass without making code."""

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
    gradients = {
        name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
    }
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
    with compiled_blocks(network, {"backend": graphs}) as all_kinds:
        output, gradients = run(network, lambda: call(network))
        run(network, lambda: call(network))
        assert len(all_kinds) == kinds
        assert graphs.count == kinds
        network.load_state_dict(state)
        network.eval()
        with torch.no_grad():
            call(network)
            evaluated = call(network)
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


def test_an_encoder_of_visible_patches_and_one_with_windows():
    torch.manual_seed(0)
    encoder, images = vit(position="sincos"), torch.randn(3, 3, 16, 16)
    keep = torch.stack([torch.randperm(16)[:6] for _ in range(3)])
    check(encoder, lambda encoder: encoder.forward_tokens(encoder.embed(images), keep).sequence, 1)
    encoder = vit()
    encoder.use_windows(2, (1, 3))
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    encoder.eval()
    expected, graphs = encoder.pyramid(images)[0], Graphs()
    with compiled_blocks(encoder, {"backend": graphs}):
        torch.testing.assert_close(encoder.pyramid(images)[0], expected, **ROUNDING)
    assert graphs.count == 2  # whole grid and windows


def swin_decoder() -> nn.Module:
    return InverseSwin(16, 4, (4, 4), window=2)


DECODERS = {
    "transformer": (lambda: transformer_blocks(16, 4, 2, drop_path=0.4, layer_scale=0.1), (3, 5, 16), 1),
    "cross-attention": (lambda: cross_blocks(16, 8, 4, 2, drop_path=0.4), (3, 5, 16), 1),
    "ConvNeXt": (lambda: convnext_blocks(8, 3), (3, 8, 4, 4), 1),  # its blocks put out channels last
    "inverse Swin": (swin_decoder, (3, 16, 4, 4), 4),
    "patch ViT": (lambda: PatchViT(16, 4, 3, dim=16, depth=3, num_heads=2), (3, 3, 16, 16), 1),
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder(name):
    build, shape, kinds = DECODERS[name]
    torch.manual_seed(0)
    decoder, values = build(), torch.randn(shape)
    if name == "ConvNeXt":
        values = values.to(memory_format=torch.channels_last)

    def call(decoder: nn.Module) -> Tensor:
        x = values.clone().requires_grad_(torch.is_grad_enabled())
        if not isinstance(decoder, nn.ModuleList):
            return decoder(x)
        y, context = x, torch.ones(3, 4, 8)
        for block in decoder:
            y = block(y, context)
        return y

    check(decoder, call, kinds)


def test_a_predictor_with_rotary_positions():
    torch.manual_seed(0)
    predictor = RotaryPredictor(12, dim=16, depth=3, num_heads=2, drop_path=0.4)
    assert list(marked_blocks(predictor)) == list(predictor.blocks)
    assert not any("drop_path" in name for name in predictor.state_dict())
    context, order = torch.randn(3, 2 + 5, 12), torch.stack([torch.randperm(16) for _ in range(3)])
    check(predictor, lambda predictor: predictor(context, order[:, :5], order[:, 5:9], (4, 4)), 1)


def test_recomputed_activations_give_the_same_gradients_with_the_same_dropped_paths():
    torch.manual_seed(0)
    encoder, images = vit().train(), torch.randn(3, 3, 16, 16)
    plain = run(encoder, lambda: encoder.encode(encoder.embed(images)))
    encoder.set_grad_checkpointing()
    with compiled_blocks(encoder, {"backend": Graphs()}):
        recomputed = run(encoder, lambda: encoder.encode(encoder.embed(images)))
    torch.testing.assert_close(recomputed, plain, **ROUNDING)


class Counting(nn.Module):
    """A block that torch cannot compile without a break."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return self.layer(x)


def counting() -> nn.Sequential:
    blocks = [Counting(), Counting()]
    mark_blocks(blocks)
    return nn.Sequential(*blocks)


def test_a_block_with_a_graph_break_is_refused_or_runs_as_it_is():
    network, x, lines = counting(), torch.randn(2, 4), []
    with (
        compiled_blocks(network, {"backend": "eager"}),
        pytest.raises(RunError, match=r"cannot compile Counting .*off"),
    ):
        network(x)
    with compiled_blocks(network, {"backend": "eager"}, on_failure=lines.append):
        compiled = network(x)
    assert torch.equal(compiled, network(x))
    assert len(lines) == 1
    assert "cannot compile Counting" in lines[0]


def test_an_error_within_a_block_stays_that_error():
    blocks = transformer_blocks(8, 2, 2)
    with compiled_blocks(blocks, {"backend": "eager"}), pytest.raises((RuntimeError, ValueError)) as caught:
        blocks(torch.randn(2, 3, 8, dtype=torch.float64))
    assert "cannot compile" in str(caught.value) or "dtype" in str(caught.value)


def test_ever_new_shapes_run_eagerly_in_the_end():
    blocks, graphs = transformer_blocks(8, 2, 2).eval(), Graphs()
    with torch.no_grad(), compiled_blocks(blocks, {"backend": graphs}) as kinds:
        for length in range(1, MOST_GRAPHS + 3):
            blocks(torch.randn(1, length, 8))
    assert graphs.count == MOST_GRAPHS
    assert kinds[0].is_full


def test_a_copy_made_while_blocks_are_compiled_runs_alone():
    blocks, x = transformer_blocks(8, 2, 2, drop_path=0.5).train(), torch.randn(4, 3, 8)
    with compiled_blocks(blocks, {"backend": "eager"}):
        alone = copy.deepcopy(blocks)
    torch.manual_seed(1)
    expected = blocks(x)
    torch.manual_seed(1)
    torch.testing.assert_close(alone(x), expected, **ROUNDING)


def test_paused_blocks_run_their_own_code():
    blocks, graphs = transformer_blocks(8, 2, 2), Graphs()
    with compiled_blocks(blocks, {"backend": graphs}):
        with uncompiled(blocks):
            blocks(torch.randn(1, 2, 8, requires_grad=True))
        assert graphs.count == 0
        blocks(torch.randn(1, 2, 8, requires_grad=True))
    assert graphs.count == 1


def test_blocks_within_a_block_are_part_of_it():
    inner = transformer_blocks(8, 2, 2)
    outer = nn.Sequential(nn.Sequential(inner))
    mark_blocks(outer)
    assert list(marked_blocks(outer)) == [outer[0]]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_inductor_computes_the_same():
    torch.manual_seed(0)
    blocks, x = transformer_blocks(16, 3, 2, drop_path=0.4).train(), torch.randn(3, 5, 16, requires_grad=True)
    expected = run(blocks, lambda: blocks(x))
    with compiled_blocks(blocks) as kinds:
        compiled = run(blocks, lambda: blocks(x))
    assert len(kinds[0].graphs) == 1
    torch.testing.assert_close(compiled, expected, **ROUNDING)
