"""The predictor: what a prediction depends on, and where its positions are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mimbench.api import init_truncated, sincos_positions, transformer_blocks, visible_indices
from mimbench.errors import InputError
from mimbench.parts.predictor import Predictor

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "ijepa_vit_tiny.npz"))
NAMES = {"predictor_embed": "project", "predictor_blocks": "blocks", "predictor_norm": "norm", "predictor_proj": "head"}
"""Parameters of I-JEPA's predictor -> ours."""


def test_prefix_tokens_are_predicted_from_the_same_pass():
    predictor = build()
    context, cells, targets = inputs()
    with torch.no_grad():
        both = predictor(context, cells, targets, with_prefix=True)
        assert both.shape == (2, 1 + 3, 5)
        assert torch.equal(both[:, 1:], predictor(context, cells, targets))
        alone = predictor(context[:, :1], cells[:, :0], targets, with_prefix=True)
    assert not torch.allclose(alone[:, 0], both[:, 0])
    with pytest.raises(InputError, match="a predictor with cross-attention has no prefix tokens"):
        build(cross=True)(context, cells, targets, with_prefix=True)


def test_it_is_ijepas_predictor():
    """facebookresearch/ijepa@52c1ae95, with its weights: the predictions of each of four blocks."""
    golden = {key: torch.from_numpy(value) for key, value in GOLDEN.items() if value.dtype.kind in "fi"}
    predictor = Predictor(32, 32, dim=24, depth=2, num_heads=4, grid=(12, 12))
    weights = {}
    for key, value in golden.items():
        if key.startswith("param/predictor."):
            first, _, rest = key.removeprefix("param/predictor.").partition(".")
            weights[".".join(filter(None, (NAMES.get(first, first), rest)))] = value
    del weights["predictor_pos_embed"]
    predictor.load_state_dict(weights)
    with torch.no_grad():
        (cells,) = golden["input/masks_enc"]
        out = torch.cat([predictor(golden["out/context"], cells, block) for block in golden["input/masks_pred"]])
    assert torch.allclose(out, golden["out/pred"], atol=1e-5)


def build(**options):
    torch.manual_seed(0)
    sizes = {"dim": 16, "depth": 2, "num_heads": 2, "grid": (3, 4)}
    made = Predictor(8, 5, **sizes | options)
    init_truncated(made, std=0.5)
    return made.eval()


def inputs():
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(2, 12, generator=generator).argsort(1)
    return torch.randn(2, 1 + 4, 8, generator=generator), order[:, :4], order[:, 4:7]


@pytest.mark.parametrize("cross", [False, True])
def test_a_prediction_depends_on_its_cell_and_the_context(cross):
    predictor = build(cross=cross)
    context, cells, targets = inputs()
    with torch.no_grad():
        out = predictor(context, cells, targets)
        assert out.shape == (2, 3, 5)
        assert torch.allclose(predictor(context, cells, targets.flip(1)), out.flip(1), atol=1e-5)
        moved = targets.clone()
        moved[:, 0] = 11 - targets[:, 0]
        changed = predictor(context, cells, moved)
        assert (changed[:, 0] - out[:, 0]).abs().max() > 1e-3
        others = (changed[:, 1:] - out[:, 1:]).abs().max()
        assert others == 0 if cross else others > 1e-5  # through cross-attention, predictions do not see each other
        louder = context.clone()
        louder[:, 0] += 3.0  # the prefix token counts
        assert (predictor(louder, cells, targets) - out).abs().max() > 1e-3


def test_context_tokens_have_the_positions_of_their_cells():
    predictor = build()
    context, cells, targets = inputs()
    order = torch.tensor([2, 0, 3, 1])
    shuffled = torch.cat((context[:, :1], context[:, 1:][:, order]), 1)
    with torch.no_grad():
        out = predictor(context, cells, targets)
        assert torch.allclose(predictor(shuffled, cells[:, order], targets), out, atol=1e-5)
        assert (predictor(shuffled, cells, targets) - out).abs().max() > 1e-4
    assert torch.equal(predictor.positions, sincos_positions((3, 4), 16)[:, 1:])
    assert "positions" not in predictor.state_dict()


def test_without_a_grid_cells_have_no_positions():
    predictor = build(grid=None)
    context, cells, targets = inputs()
    with torch.no_grad():
        out = predictor(context, cells, targets)
    assert torch.allclose(out[:, :1].expand_as(out), out, atol=1e-5)


def test_each_cross_block_may_read_another_context():
    predictor = build(cross=True)
    context, cells, targets = inputs()
    with torch.no_grad():
        out = predictor(context, cells, targets)
        assert torch.equal(predictor([context, context], cells, targets), out)
        assert (predictor([context, 2 * context], cells, targets) - out).abs().max() > 1e-3
    with pytest.raises(InputError, match="takes one context; set cross=True"):
        build()([context, context], cells, targets)


@pytest.mark.parametrize("cross", [False, True])
def test_every_parameter_gets_a_gradient(cross):
    predictor = build(cross=cross, drop_path=0.1)
    predictor(*inputs()).square().sum().backward()
    assert [name for name, p in predictor.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_drop_path_rises_to_the_last_block():
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in transformer_blocks(8, 3, 2, drop_path=0.2)]
    assert rates == pytest.approx([0.0, 0.1, 0.2])
    crossed = build(cross=True, depth=3, drop_path=0.2).blocks
    assert [getattr(block.drop_path1, "drop_prob", 0.0) for block in crossed] == pytest.approx([0.0, 0.1, 0.2])
    assert [getattr(b.drop_path1, "drop_prob", 0.0) for b in transformer_blocks(8, 1, 2, drop_path=0.2)] == [0.0]


def test_a_cross_block_is_the_attention_of_torch():
    predictor = build(cross=True, depth=1)
    block = predictor.blocks[0]
    x, context = torch.randn(2, 3, 16), torch.randn(2, 5, 8)
    key, value = block.attn["kv"].weight.chunk(2)
    key_bias, value_bias = block.attn["kv"].bias.chunk(2)
    reference = torch.nn.MultiheadAttention(16, 2, kdim=8, vdim=8, batch_first=True)
    with torch.no_grad():
        reference.q_proj_weight.copy_(block.attn["q"].weight)
        reference.k_proj_weight.copy_(key)
        reference.v_proj_weight.copy_(value)
        reference.in_proj_bias.copy_(torch.cat((block.attn["q"].bias, key_bias, value_bias)))
        reference.out_proj.load_state_dict(block.attn["proj"].state_dict())
        y = x + reference(block.norm1(x), context, context)[0]
        expected = y + block.mlp(block.norm2(y))
        assert torch.allclose(block(x, context), expected, atol=1e-5)


def test_impossible_sizes_are_refused():
    with pytest.raises(InputError, match="16 channels cannot be shared by 3 heads"):
        build(num_heads=3)
    with pytest.raises(InputError, match="16 channels cannot be shared by 3 heads"):
        build(num_heads=3, cross=True)
    with pytest.raises(InputError, match="divisible by 4, not 6"):
        build(dim=6, num_heads=3)


def test_it_takes_the_output_of_visible_tokens():
    """`visible_indices` gives the cells of a mask in the order that the encoder and the predictor share."""
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[:, 1, :] = False
    cells, targets = visible_indices(mask), visible_indices(~mask)
    assert build()(torch.randn(2, 4, 8), cells, targets).shape == (2, 8, 5)
