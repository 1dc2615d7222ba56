"""Each head computes what its official code computes: every token projected, and torch's attention over them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mimbench_tasks.attentive_probe.heads import HEADS, build_head
from mimbench_tasks.attentive_probe.poolers import (
    CAEPooling,
    CAPIPooling,
    EfficientPooling,
    MILPooling,
    VJEPAPooling,
    entropy_and_overlap,
    head_count,
)

DIM, HEADS_OF_64 = 128, 2


@pytest.fixture
def tokens():
    return torch.randn(3, 7, DIM, generator=torch.Generator().manual_seed(1))


def shaken(module):
    """With weights that are all random, so that zero queries, zero biases and norms count."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def attend(query, keys, values, heads):
    """torch's attention of queries [B, 1, D] to projected tokens [B, N, D]."""
    query, keys, values = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (query, keys, values))
    return F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)[:, 0]


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_ep_projects_every_token_and_lets_each_query_pool_its_share_of_the_channels(tokens):
    pool = shaken(EfficientPooling(DIM, 4))
    scores = torch.einsum("qd,bnd->bqn", pool.query, tokens) / math.sqrt(DIM)
    values = pool.values(tokens).unflatten(-1, (4, DIM // 4))
    expected = torch.einsum("bqn,bnqe->bqe", scores.softmax(-1), values).flatten(1)
    same(pool(tokens), expected)
    same(pool.weights(tokens), scores.softmax(-1))


def test_capi_cuts_its_query_into_heads(tokens):
    pool = shaken(CAPIPooling(DIM, HEADS_OF_64))
    query = pool.query.expand(3, 1, -1)
    same(pool(tokens), attend(query, pool.keys(tokens), pool.values(tokens), HEADS_OF_64))


def test_cae_has_a_layer_norm_each_for_query_keys_and_values(tokens):
    pool = shaken(CAEPooling(DIM, HEADS_OF_64))
    query = pool.queries(pool.query_norm(pool.query.expand(3, 1, -1)))
    keys, values = pool.keys(pool.key_norm(tokens)), pool.values(pool.value_norm(tokens))
    same(pool(tokens), pool.output(attend(query, keys, values, HEADS_OF_64)))


def test_vjepa_is_a_cross_attention_block_with_residuals(tokens):
    pool = shaken(VJEPAPooling(DIM, HEADS_OF_64))
    normed = pool.token_norm(tokens)
    query = pool.query.expand(3, 1, -1)
    x = query[:, 0] + pool.output(attend(pool.queries(query), pool.keys(normed), pool.values(normed), HEADS_OF_64))
    same(pool(tokens), x + pool.mlp(pool.mlp_norm(x)))


@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_a_bias_of_the_keys_would_change_nothing(tokens, bias):
    pool = shaken(CAPIPooling(DIM, HEADS_OF_64))
    same(pool(tokens), attend(pool.query.expand(3, 1, -1), pool.keys(tokens) + bias, pool.values(tokens), HEADS_OF_64))


def test_abmilp_weights_the_tokens_themselves(tokens):
    plain, gated = shaken(MILPooling(DIM, gated=False)), shaken(MILPooling(DIM, gated=True))
    scores = (tokens @ plain.scores.weight[0]).softmax(1)
    same(plain(tokens), (scores[..., None] * tokens).sum(1))
    v, u = gated.gates.weight.chunk(2)
    v_bias, u_bias = gated.gates.bias.chunk(2)
    shown = torch.tanh(tokens @ v.T + v_bias) * torch.sigmoid(tokens @ u.T + u_bias)
    scores = (shown @ gated.scores.weight[0]).softmax(1)
    same(gated(tokens), (scores[..., None] * tokens).sum(1))


@pytest.mark.parametrize("name", HEADS)
def test_heads_train_all_of_their_parameters_and_do_not_depend_on_the_order_of_patches(name, tokens):
    torch.manual_seed(0)
    head = build_head(name, DIM, 5, queries=4, batch_norm=None).eval()
    shown = tokens.mean(1) if name in ("mean", "token") else tokens
    shaken(head)
    logits = head(shown)
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())
    if shown.ndim == 3:
        same(head(shown.flip(1)), logits)
        weights = head.attention(shown)
        same(weights.sum(-1), torch.ones(3, weights.shape[1]))
    else:
        assert head.attention(shown) is None


def test_heads_start_as_in_their_official_code():
    torch.manual_seed(0)
    ep, capi, cae, vjepa = (
        build_head(name, 256, 50, queries=32, batch_norm=None) for name in ("ep", "capi", "cae", "vjepa")
    )
    assert (ep.norm.eps, ep.norm.affine, cae.norm.eps, cae.norm.affine) == (1e-6, False, 1e-5, False)
    assert all(isinstance(one.norm, torch.nn.Identity) for one in (capi, vjepa))
    assert ep.pool.query.shape == (32, 256)
    assert ep.pool.query.std().item() == pytest.approx(0.02, rel=0.05)
    assert ep.linear.weight.abs().max() <= 1 / 16  # torch's own: uniform within 1 / sqrt(256)
    assert [round(one.linear.weight.std().item(), 3) for one in (capi, cae)] == [0.02, 0.01]
    assert not cae.pool.query.any()
    assert vjepa.pool.output.weight.std().item() == pytest.approx(0.02 / math.sqrt(2), rel=0.03)
    assert build_head("capi", 64, 5, queries=1, batch_norm=True).norm.eps == 1e-6
    assert isinstance(build_head("ep", 64, 5, queries=1, batch_norm=False).norm, torch.nn.Identity)


def test_attention_heads_have_64_channels_if_that_divides():
    assert [head_count(dim) for dim in (768, 1024, 192, 64, 16, 96, 330)] == [12, 16, 3, 1, 1, 1, 5]


def test_entropy_is_of_uniform_maps_and_overlap_of_equal_ones():
    uniform, one = torch.full((1, 2, 4), 0.25), torch.eye(4)[None, :2]
    assert {name: values.item() for name, values in entropy_and_overlap(uniform).items()} == pytest.approx(
        {"entropy": 1.0, "overlap": 1.0}
    )
    assert {name: values.item() for name, values in entropy_and_overlap(one).items()} == {"entropy": 0, "overlap": 0}
    assert "overlap" not in entropy_and_overlap(uniform[:, :1])
