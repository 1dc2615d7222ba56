"""CAE: against the official code; its regressor, teacher and masks."""

from __future__ import annotations

import pytest
import torch

from helpers.official_values import GOLDEN, check_block_masks, check_decay, check_rates, read_json
from helpers.other_sizes import other_sizes
from helpers.presets import resolved
from helpers.random_inputs import images, seeded, shake
from mimbench.contract import InputError
from mimbench.convert import recognise, to_encoder, to_method
from mimbench.convert.encoder_sizes import describe_encoder
from mimbench.encoders.vit import ViT
from mimbench.harness.planning.build import build as build_model
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden, setup_of
from mimbench_methods._latent_regressor import RegressorBlock
from mimbench_methods.cae import CAE

GOLDEN_FILE = GOLDEN / "cae_vit_tiny.npz"
SMALL = {"regressor_depth": 1, "decoder_depth": 1, "decoder_dim": 16, "decoder_heads": 2, "decoder_drop_path": 0.0}


def build(drop_path=0.0, grid=4, **options) -> CAE:
    torch.manual_seed(0)
    config = ViT.Config(
        patch_size=4, embed_dim=16, depth=2, num_heads=2, position="sincos-rows-first", drop_path=drop_path
    )
    masks = {"hidden_patches": 8, "min_block": 2, "kmeans": {"vocabulary": 12}}
    return CAE(CAE.Config(**SMALL | masks | options), ViT(config, image_size=4 * grid, in_channels=3))


@pytest.mark.parametrize(("grid", "count", "least"), [(14, 98, 16), (8, 32, 4)])
def test_masks_are_the_official_ones_from_the_official_stream(monkeypatch, grid, count, least):
    method = build(grid=grid, hidden_patches=count, min_block=least)
    check_block_masks(monkeypatch, method, f"cae_{grid}x{grid}_{count}_{least}")


@pytest.mark.parametrize("case", ["A", "B"])
def test_pretraining_has_the_official_rates(case):
    check_rates(resolved("imagenet-vit-base", "cae").pretrain, read_json("lr_schedule_b")[f"cae_pretrain/{case}"])


def test_the_official_parameters_are_decayed():
    """Biases are none of them, whether queries and values have one or two."""
    method = build_model(setup_of(read_golden(GOLDEN_FILE))[0])
    official = read_json("decay_groups_b")["cae_pretrain"]
    parts = {
        "mask_token": "mask_token",
        "pretext_neck.regressor_blocks.": "regressor.",
        "pretext_neck.norm.": "regressor_norm.",
        "pretext_neck.decoder_blocks.": "decoder.",
        "pretext_neck.norm2.": "decoder_norm.",
        "pretext_neck.head.": "head.",
        "encoder.": "encoder.body.",
    }

    def here(name: str) -> str:
        name = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma") if "cross" not in name else name
        return name.replace("attn.q_bias", "attn.qkv.bias") if "cross" not in name else name

    names = {key: [here(name) for name in official[key] if "attn.v_bias" not in name] for key in ("decay", "no_decay")}
    names["no_decay"] += [name for name in official["no_decay"] if "cross_attn.v_bias" in name]
    check_decay(method, names, parts)


@pytest.mark.parametrize("width", [16, 24])
def test_nothing_depends_on_the_sizes(width, tmp_path):
    config = {"img_size": 30, "patch_size": 5, "in_chans": 1, "embed_dim": 24, "depth": 3, "num_heads": 2}
    config |= {"decoder_embed_dim": width, "decoder_num_heads": 4, "regressor_depth": 3, "decoder_depth": 1}
    config |= {"mlp_ratio": 2, "vocab_size": 9, "align_loss_weight": 1.5, "base_momentum": 0.75}
    mask = build(grid=6, hidden_patches=18).sample_mask(2, seeded())
    tokens = torch.randint(9, (2, 36), generator=seeded())
    inputs = {"image": torch.randn(2, 1, 30, 30, generator=seeded()), "mask": mask.long(), "token_ids": tokens}
    result = compare(read_golden(other_sizes("cae_vit_tiny", config, inputs, tmp_path / "other.npz")))
    assert [row.quantity for row in result.rows if not row.passed] == []
    quantities = {row.quantity for row in result.rows}
    assert {"output latent_pred", "gradient pretext_neck.regressor_blocks.2.norm1_q.weight"} <= quantities
    assert ("gradient encoder_to_decoder.weight" in quantities) == (width != 24)


def test_the_official_checkpoint_is_read_whole():
    golden = read_golden(GOLDEN_FILE)
    state = golden.group("param/")
    assert recognise(state).name == "cae"
    converted = to_method(state, recognise(state), build_model(setup_of(golden)[0]))
    assert all(name.startswith("teacher.") for name in converted.left_out)
    assert all(name.startswith(("teacher.", "tokenizer.")) for name in converted.missing)
    assert torch.equal(converted.state["decoder_norm.bias"], state["pretext_neck.norm2.bias"])
    assert not to_encoder(state, recognise(state), build_model(setup_of(golden)[0]).encoder).missing
    positions = describe_encoder(state, recognise(state), "vit-tiny").options["position"]
    assert positions == "sincos-rows-first"


def test_encoder_positions_are_the_official_ones():
    golden = read_golden(GOLDEN_FILE)
    method = build_model(setup_of(golden)[0])
    official = golden.tensor("param/encoder.pos_embed")
    assert torch.allclose(method.encoder.state_dict()["body.pos_embed"], official, atol=1e-6)


def test_the_teacher_lags_by_one_step():
    method = build(momentum=0.75)
    start = {name: value.clone() for name, value in method.teacher.module.named_parameters()}
    shake(method.encoder)
    method.before_update(0.0)
    student = {name: value.clone() for name, value in method.encoder.named_parameters()}
    shake(method.encoder)  # the optimizer's step
    method.after_step(0.1)
    for name, value in method.teacher.module.named_parameters():
        assert torch.allclose(value, 0.75 * start[name] + 0.25 * student[name], atol=1e-6), name


def test_the_teacher_sees_the_masked_patches_only_and_drops_as_the_student():
    method = build(drop_path=0.9)
    mask = method.sample_mask(3, seeded())
    masked = mask.flatten(1).nonzero()[:, 1].view(3, -1)
    changed = torch.where(mask.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1), images(), 9.0)
    method.eval()
    target = method.latent_target(images(), masked)
    assert torch.equal(method.latent_target(changed, masked), target)
    assert not target.requires_grad
    method.train()
    assert not torch.equal(method.latent_target(images(), masked), target)


def test_a_regressor_block_by_hand():
    torch.manual_seed(0)
    block = RegressorBlock(8, 2, 2.0, layer_scale=0.5, drop_path=0.0).double()
    shake(block)
    queries, context, here, there = (torch.randn(1, n, 8, dtype=torch.float64) for n in (2, 5, 2, 5))
    attention = block.cross_attn
    q = (block.norm1_q(queries + here) @ attention.q.weight.T + attention.q_bias).view(2, 2, 4)
    k = (block.norm1_k(context + there) @ attention.k.weight.T).view(5, 2, 4)
    v = (block.norm1_v(context) @ attention.v.weight.T + attention.v_bias).view(5, 2, 4)
    weights = (torch.einsum("qhd,khd->hqk", q, k) / 2).softmax(-1)
    read = attention.proj(torch.einsum("hqk,khd->qhd", weights, v).reshape(2, 8))
    x = block.norm2_cross(queries[0] + block.gamma_1_cross * read)
    expected = x + block.gamma_2_cross * block.mlp_cross(x)
    assert torch.allclose(block(queries, context, here, there)[0], expected, atol=1e-12)


def test_drop_path_of_a_regressor_block_drops_whole_branches():
    torch.manual_seed(0)
    block = RegressorBlock(8, 2, 2.0, layer_scale=None, drop_path=0.5)
    shake(block.cross_attn)
    queries, context = torch.randn(64, 2, 8), torch.randn(64, 5, 8)
    branch = torch.ones(64, 2, 8)
    dropped = block._dropped(block.drop_path1, branch)
    assert set(dropped[:, 0, 0].tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[:, :1, :1].expand(-1, 2, 8))
    whole = block.eval()(queries, context, 0.0, 0.0)
    assert torch.equal(block(queries, context, 0.0, 0.0), whole)
    assert not torch.equal(block.train()(queries, context, 0.0, 0.0), whole)


def test_losses_are_added_with_their_weight():
    method = build(align_weight=3.0)
    mask = method.sample_mask(3, seeded())
    output = method(images(), mask)
    masked = mask.flatten(1).nonzero()[:, 1].view(3, -1)
    latent = method.regress(images(), (~mask).flatten(1).nonzero()[:, 1].view(3, -1), masked)
    alignment = (latent - method.latent_target(images(), masked)).square().mean()
    words = torch.nn.functional.cross_entropy(method.predict(images(), mask)[mask], method.target(images())[mask])
    assert output.loss.item() == pytest.approx((words + 3 * alignment).item(), rel=1e-5)
    assert output.logs["alignment"].item() == pytest.approx(alignment.item(), rel=1e-5)


def test_everything_but_the_teacher_trains(sees_only_the_visible):
    method = build()
    shake(method.head)
    mask = method.sample_mask(3, seeded())
    method(images(), mask).loss.backward()
    idle = [name for name, p in method.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert [name for name in idle if not name.endswith("norm1_k.bias")] == []  # the softmax cancels it
    assert all(p.grad is None for p in [*method.teacher.parameters(), *method.tokenizer.parameters()])
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images(), mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_patches": 16}, "masks everything of 16 cells"),
        ({"decoder_heads": 3}, "16 channels cannot be shared by 3 heads"),
        ({"decoder_dim": 18, "decoder_heads": 2}, "divisible by 4, not 18"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(**options)


def test_it_runs_without_values(trains_without_values):
    trains_without_values(build, (3, 3, 16, 16), (3, 4, 4))
