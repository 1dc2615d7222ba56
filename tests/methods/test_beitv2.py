"""BEiT v2: against the official code, and what it promises besides."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.official_values import GOLDEN, check_decay, check_initial_weights, check_rates, read_arrays, read_json
from helpers.presets import resolved
from helpers.random_inputs import seeded
from mimbench.contract import InputError, NotSupported
from mimbench.encoders.vit import ViT
from mimbench.harness.planning.build import build as build_setup
from mimbench.masks import block_mask
from mimbench.masks.official import numpy_fill_up, python_block_mask
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden, setup_of
from mimbench.parity.replay import run_step
from mimbench_methods.beitv2 import BEiTv2
from mimbench_tasks.finetune.task import Finetune

PARTS = {"mask_token": "mask_token", "lm_head": "head", "cls_pt_layers": "late_blocks"}
"""Official names outside of the encoder -> here."""
TINY_WORDS = {
    "teacher": "hog",
    "vocabulary": 12,
    "embed_dim": 8,
    "depth": 1,
    "num_heads": 2,
    "code_dim": 4,
    "decoder_dim": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
}


def build(position="relative", words=None, encoder=None, **options) -> BEiTv2:
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "position": position, "layer_scale": 0.1}
    built = ViT(ViT.Config(**(sizes | (encoder or {}))), image_size=16, in_channels=3)
    options = {"hidden_patches": 7, "min_block": 4, "early_layers": 2, "late_blocks": 2} | options
    return BEiTv2(BEiTv2.Config(**options, vqkd=TINY_WORDS | (words or {})), built)


def batch(method: BEiTv2, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, 16, 16, generator=seeded()), method.sample_mask(count, seeded())


def official_file(golden_path, config) -> tuple:
    """The tiny official file's meta with another config, as (setup, code, golden without arrays)."""
    golden = read_golden(golden_path)
    golden = type(golden)(golden_path, {**golden.meta, "config": {**golden.config, **config}}, {}, {})
    return (*setup_of(golden), golden)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shared_lm_head": False, "early_layers": 2, "head_layers": 1},
        {"img_size": 35, "patch_size": 5, "in_chans": 1, "embed_dim": 24, "depth": 3, "num_heads": 3, "vocab_size": 17},
        {"early_layers": 4, "init_values": 0.5, "mlp_ratio": 2},
    ],
    ids=str,
)
def test_nothing_depends_on_the_sizes_of_the_golden_file(tmp_path, change):
    """Official names, shapes and options of other models; the numbers are mimbench's own."""
    setup, code, golden = official_file(GOLDEN / "beitv2_vit_tiny.npz", change)
    method, config = build_setup(setup), golden.config
    generator = seeded()
    for name, value in method.named_parameters():
        value.data = 0.2 * torch.randn(value.shape, generator=generator) + name.endswith("norm.weight")
    back = {here: there for there, here in code.names.items()}

    def official(name: str) -> str | None:
        if name.startswith("tokenizer."):
            return None
        head, dot, rest = name.removeprefix("encoder.body.").partition(".")
        return back.get(head, head) + dot + rest

    arrays = {f"param/{official(name)}": value for name, value in method.state_dict().items() if official(name)}
    side = config["img_size"] // config["patch_size"]
    arrays["input/image"] = torch.randn(2, config["in_chans"], *(config["img_size"],) * 2, generator=generator)
    arrays["input/mask"] = block_mask(2, (side, side), 6, generator, min_block=1, exact=True).long()
    arrays["input/token_ids"] = torch.randint(config["vocab_size"], (2, side * side), generator=generator)
    made = type(golden)(golden.path, golden.meta, arrays, {})
    step = run_step(made, code, method, torch.float32)
    arrays |= {**step.outputs, "grad_norm": step.norm}
    arrays |= {f"grad/{official(name)}": value for name, value in step.gradients.items()}
    np.savez(
        tmp_path / "own.npz",
        meta=json.dumps(golden.meta),
        **{name: value.detach().numpy() for name, value in arrays.items()},
    )
    result = compare(read_golden(tmp_path / "own.npz"))
    assert [row.quantity for row in result.rows if not row.passed] == []
    assert any("gradient cls_pt_" in row.quantity for row in result.rows)
    assert ("late_head.weight" in dict(method.named_parameters())) is not config["shared_lm_head"]


def test_a_golden_file_with_parts_that_are_absent_here_is_refused():
    with pytest.raises(InputError, match="use_abs_pos_emb"):
        official_file(GOLDEN / "beitv2_vit_tiny.npz", {"use_abs_pos_emb": True})


@pytest.mark.parametrize(
    ("grid", "count", "least", "name"), [(14, 75, 16, "beitv2_14x14_75_16"), (8, 26, 4, "beitv2_8x8_26_4")]
)
def test_masks_are_the_official_ones_from_the_official_streams(grid, count, least, name):
    expected = read_arrays("mask_exact_b")[0][name].bool()
    for seed in range(10):
        stream, other = random.Random(seed), np.random.RandomState(seed)
        masks = python_block_mask(3, (grid, grid), count, stream, min_block=least)
        numpy_fill_up(masks, count, other)
        assert torch.equal(masks, expected[seed])


@pytest.mark.parametrize("rng", ["torch", "official"])
def test_masks_are_distributed_as_the_official_ones(rng):
    """Of many official masks of this size: exactly 26, and as often masked at each place, but for chance."""
    expected = read_arrays("mask_exact_b")[0]["beitv2_8x8_26_4"].float().flatten(0, 1)
    masks = block_mask(2000, (8, 8), 26, seeded(), min_block=4, exact=True, rng=rng)
    assert set(masks.flatten(1).sum(1).tolist()) == {26}
    borders = (masks[:, :, 1:] != masks[:, :, :-1]).float().sum((1, 2)).mean()  # blocks have short borders
    theirs = (expected[:, :, 1:] != expected[:, :, :-1]).float().sum((1, 2))
    assert abs(borders - theirs.mean()) < 4 * theirs.std() / len(theirs) ** 0.5


def test_the_method_masks_exactly_so_many():
    method = build()
    counts = method.sample_mask(64, seeded()).flatten(1).sum(1)
    assert set(counts.tolist()) == {7}


@pytest.mark.parametrize("case", ["A", "B"])
def test_rates_are_the_official_ones(case):
    official = read_json("lr_schedule_b")
    recipe = resolved("imagenet-vit-base", "beitv2")
    check_rates(recipe.pretrain, official[f"beitv2_pretrain/{case}"])
    assert recipe.pretrain.weight_decay == official[f"beitv2_pretrain/{case}"]["weight_decay_at_optimizer_step"][-1]
    tokenizer = recipe.method_config.vqkd.train
    check_rates(tokenizer, official[f"beitv2_vqkd/{case}"])
    assert tokenizer.weight_decay == official[f"beitv2_vqkd/{case}"]["weight_decay_at_optimizer_step"][-1]


def test_fine_tuning_follows_the_recipe_of_its_pretraining():
    base, large = (Finetune.protocols[f"beitv2-vit-{size}"].options["train"] for size in ("base", "large"))
    assert (base["base_lr"], base["layer_decay"], base["epochs"]) == (5e-4, 0.6, 100)
    assert (large["base_lr"], large["layer_decay"], large["epochs"]) == (2e-4, 0.8, 50)


def test_pretraining_decays_the_official_parameters():
    setup, _, _ = official_file(GOLDEN / "beitv2_vit_tiny.npz", {})
    check_decay(build_setup(setup), read_json("decay_groups_b")["beitv2_pretrain"], PARTS)


def test_initial_weights_are_distributed_as_the_official_ones():
    torch.manual_seed(0)
    sizes = ViT.Config(patch_size=16, embed_dim=192, depth=3, num_heads=3, layer_scale=0.1)
    config = BEiTv2.Config(early_layers=2, vqkd=TINY_WORDS | {"vocabulary": 64})
    method = BEiTv2(config, ViT(sizes, image_size=224, in_channels=3))
    check_initial_weights(method, read_json("init_stats_b")["beitv2"], PARTS)


@pytest.mark.parametrize("position", ["relative", "relative-per-block", "learned", "sincos", "rope"])
@pytest.mark.parametrize("shared", [True, False])
def test_every_parameter_trains(position, shared, reaches_every_parameter, trains_in_bf16):
    method = build(position, shared_head=shared)
    reaches_every_parameter(method, *batch(method))
    assert all(p.grad is None for p in method.tokenizer.parameters())
    trains_in_bf16(method, *batch(method))


def test_the_late_blocks_see_the_last_class_token_and_early_patches():
    method = build().eval()
    images, mask = batch(method)
    tokens = method.encoder.embed(images)
    tokens = torch.where(mask.unsqueeze(-1), method.mask_token, tokens)
    body, outputs = method.encoder.body, []
    for block in body.blocks:
        block.register_forward_hook(lambda *call: outputs.append(call[2]))
    method.encoder.encode(tokens)
    x = torch.cat((outputs[2][:, :1], outputs[1][:, 1:]), 1)
    bias = body.rel_pos_bias().unsqueeze(0)
    for block in method.late_blocks:
        x = block(x, shared_rel_pos_bias=bias)
    first, second = method.predict(images, mask).flatten(2, 3).unbind(1)
    assert torch.allclose(first, method.head(body.norm(outputs[2]))[:, 1:], atol=1e-5)
    assert torch.allclose(second, method.head(body.norm(x))[:, 1:], atol=1e-5)


def test_masked_pixels_do_not_reach_the_prediction(sees_only_the_visible):
    method = build().eval()
    images, mask = batch(method)
    assert method.predict(images, mask).shape == (3, 2, 4, 4, 12)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)


def test_the_loss_adds_the_cross_entropies_of_both_predictions():
    method = build()
    images, mask = batch(method)
    prediction = torch.randn(3, 2, 4, 4, 12, generator=seeded(1))
    words = torch.randint(12, (3, 4, 4), generator=seeded(2))
    expected = sum(F.cross_entropy(part[mask], words[mask]) for part in prediction.unbind(1))
    assert method.loss(prediction, words, mask).item() == pytest.approx(expected.item(), rel=1e-6)
    logs = method(images, mask).logs
    assert set(logs) == {"mlm_acc", "mlm_acc_late"}


def test_the_late_blocks_drop_paths_as_if_the_network_went_on():
    method = build(encoder={"drop_path": 0.4, "depth": 5}, early_layers=3, late_blocks=2)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in method.late_blocks]
    assert rates == pytest.approx([0.3, 0.4])
    assert all(block.drop_path2.drop_prob == block.drop_path1.drop_prob for block in method.late_blocks)
    deeper = build(encoder={"drop_path": 0.4}, early_layers=3, late_blocks=2)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in deeper.late_blocks]
    assert rates == pytest.approx([0.3, 0.4])


def test_the_exported_encoder_has_nothing_of_the_late_blocks():
    method = build()
    assert method.exported_encoder() is method.encoder
    assert not any("late" in name for name in method.encoder.state_dict())
    with pytest.raises(NotSupported, match="does not predict pixels"):
        method.reconstruct(*batch(method))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_patches": 16}, "masks everything of 16 cells"),
        ({"early_layers": 4}, "early_layers 4 is more than the encoder's 3 layers"),
        ({"words": {"teacher": "clip"}}, r"set method\.vqkd\.clip to a file"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(**options)


def test_it_keeps_to_one_device(on_fake_cuda, trains_without_values):
    method = build()
    images, mask = batch(method)
    assert on_fake_cuda(method, images, mask).loss.device.type == "cuda"
    trains_without_values(build, images.shape, mask.shape)
