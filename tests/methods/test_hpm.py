"""HPM: against the official code; the ranking of patches, guided masks and the teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from helpers.official_values import GOLDEN, check_decay, check_rates, read_arrays, read_json
from helpers.other_sizes import other_sizes
from helpers.presets import resolved
from helpers.random_inputs import images, seeded, shake
from mimbench.contract import Batch, InputError
from mimbench.convert import recognise, to_method
from mimbench.encoders.vit import ViT
from mimbench.harness.planning.build import build as build_model
from mimbench.masks.official import official_guided_mask
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden, setup_of
from mimbench_methods._ranking import rank
from mimbench_methods.hpm import HPM

GOLDEN_FILE = GOLDEN / "hpm_vit_tiny.npz"
PARTS = {
    "mask_token": "mask_token",
    "decoder_embed": "project",
    "decoder_blocks.": "blocks.",
    "decoder_norm.": "norm.",
    "decoder_pred.": "head.",
    "decoder_blocks_losspred.": "loss_blocks.",
    "decoder_norm_losspred.": "loss_norm.",
    "decoder_pred_losspred.": "loss_head.",
}
"""Official names outside of the encoder -> here."""


def build(grid=4, depth=1, position="sincos", **options) -> HPM:
    torch.manual_seed(0)
    config = ViT.Config(patch_size=4, embed_dim=16, depth=depth, num_heads=2, position=position)
    encoder = ViT(config, image_size=4 * grid, in_channels=3)
    small = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
    return HPM(HPM.Config(**small | options), encoder)


@pytest.mark.parametrize("epoch", [0, 1, 60, 119, 199])
def test_masks_are_the_official_ones_from_the_official_stream(monkeypatch, epoch):
    arrays, _ = read_arrays("mask_exact_b")
    method = build(grid=14, growth_steps=200)
    streams = {}

    def guided_mask(scores, masked, guided, generator):
        return official_guided_mask(scores.flatten(1), masked, guided, *streams["seeded"]).view_as(scores)

    def random_mask(batch, grid, ratio, generator, rounding):
        scores = torch.zeros(batch, grid[0] * grid[1])
        return official_guided_mask(scores, 147, 0, *streams["seeded"]).unflatten(1, grid)

    monkeypatch.setattr("mimbench_methods.hpm.guided_mask", guided_mask)
    monkeypatch.setattr("mimbench_methods.hpm.random_mask", random_mask)
    scores = arrays["hpm_loss_pred"].view(2, 14, 14)
    monkeypatch.setattr(method.teacher.module, "predicted_errors", lambda images: scores)
    for seed, expected in enumerate(arrays[f"hpm_epoch{epoch}_of_200"].bool()):
        streams["seeded"] = (np.random.RandomState(seed), seeded(seed))
        assert torch.equal(method.sample_guided_mask(images(2), (epoch + 0.5) / 200, seeded()), expected)


def test_a_guided_mask_has_the_hardest_patches_of_the_teacher():
    method = build(growth_steps=2)
    shake(method.loss_head)
    method.teacher.follow(method, 0.0)
    shake(method.loss_head)  # the student's own opinion does not count
    scores = method.teacher.module.predicted_errors(images()).flatten(1)
    mask = method.sample_guided_mask(images(), 0.5, seeded()).flatten(1)
    guided = int(12 * 0.5)
    assert mask.gather(1, scores.argsort(1, descending=True)[:, :guided]).all()
    assert (mask.sum(1) == 12).all()
    counts = torch.stack([method.sample_guided_mask(images(), 0.5, seeded(seed)).flatten(1) for seed in range(300)])
    rest = counts.float().mean(0).gather(1, scores.argsort(1)[:, :-guided])
    assert (rest - 6 / 10).abs().max() < 0.15  # the others have equal chances


def test_share_and_tau_at_each_epoch_are_the_official_ones():
    method = build(growth_steps=200)
    official = read_json("lr_schedule_b")["hpm_ema/by epoch"]["decay"]
    for epoch, decay in official.items():
        for inside in (0.0, 0.5, 0.999):
            progress = (int(epoch) + inside) / 200
            assert method.config.tau_at(progress) == pytest.approx(decay, rel=1e-12)
            assert method.config.share_at(progress) == pytest.approx(0.5 * (int(epoch) + 1) / 200)
    smooth = build()
    assert smooth.config.tau_at(0.25) == pytest.approx((0.999 + 0.9999) / 2)
    assert smooth.config.share_at(0.5) == pytest.approx(0.25)


@pytest.mark.parametrize("case", ["A", "B"])
def test_pretraining_has_the_official_rates(case):
    check_rates(resolved("imagenet-vit-base", "hpm").pretrain, read_json("lr_schedule_b")[f"hpm_pretrain/{case}"])


def test_the_official_parameters_are_decayed():
    setup, _ = setup_of(read_golden(GOLDEN_FILE))
    check_decay(build_model(setup), read_json("decay_groups_b")["hpm_pretrain"], PARTS)


def test_nothing_depends_on_the_sizes(tmp_path):
    sizes = {"img_size": 30, "patch_size": 5, "in_chans": 1, "embed_dim": 24, "depth": 3, "num_heads": 2}
    decoder = {"decoder_embed_dim": 16, "decoder_depth": 2, "decoder_num_heads": 2, "norm_pix_loss": True}
    mask = build(grid=6, mask_ratio=0.5).sample_mask(2, seeded())
    inputs = {"image": torch.randn(2, 1, 30, 30, generator=seeded()), "mask": mask.long()}
    config = sizes | decoder | {"mask_ratio": 0.5}
    result = compare(read_golden(other_sizes("hpm_vit_tiny", config, inputs, tmp_path / "other.npz")))
    assert [row.quantity for row in result.rows if not row.passed] == []
    assert {"output pred", "gradient blocks.2.norm1.weight"} <= {row.quantity for row in result.rows}


def test_a_golden_file_without_ranking_is_refused():
    golden = read_golden(GOLDEN_FILE)
    config = {**golden.config, "relative": False}
    with pytest.raises(InputError, match="relative = False is not supported"):
        HPM.official.setup(config, golden.meta)


def test_the_official_checkpoint_is_read_whole():
    golden = read_golden(GOLDEN_FILE)
    state = golden.group("param/")
    assert recognise(state).name == "hpm"
    method = build_model(setup_of(golden)[0])
    converted = to_method({f"module.{name}": value for name, value in state.items()}, recognise(state), method)
    assert set(converted.left_out) == {"module.decoder_pos_embed"}
    assert all(name.startswith("teacher.") for name in converted.missing)
    assert torch.equal(converted.state["loss_head.bias"], state["decoder_pred_losspred.bias"])


def test_the_teacher_copies_all_but_itself_and_follows():
    method = build(tau_start=0.9, tau_end=0.9)
    assert not any("teacher" in name for name in method.teacher.module.state_dict())
    start = {name: value.clone() for name, value in method.teacher.module.named_parameters()}
    shake(method)
    method.progress = 0.3
    method.after_step(0.4)
    student = dict(method.named_parameters())
    for name, value in method.teacher.module.named_parameters():
        assert torch.allclose(value, 0.9 * start[name] + 0.1 * student[name], atol=1e-6), name
        assert not value.requires_grad


def test_the_step_is_guided_by_its_progress(monkeypatch):
    method, used = build(), []
    monkeypatch.setattr(
        method, "sample_guided_mask", lambda *args: used.append(args[1]) or method.sample_mask(3, args[2])
    )
    method.step(Batch((images(),), None, 0.7), seeded())
    assert used == [0.7]


def test_the_ranking_loss_by_hand():
    errors = torch.tensor([[3.0, 1.0, 2.0, 2.0]])
    predicted = torch.tensor([[1.0, 0.0, 2.0, -1.0]], dtype=torch.float64)
    loss, right = rank(predicted, errors)
    greater = [(0, 1), (0, 2), (0, 3), (2, 1), (3, 1)]  # patches 2 and 3 are equally hard
    terms = [-torch.log(torch.sigmoid(predicted[0, i] - predicted[0, j]) + 1e-6) for i, j in greater]
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-9)
    assert right.item() == pytest.approx(3 / 5)
    loss, _ = rank(predicted, torch.ones(1, 4))
    assert loss.item() == 0


def test_both_decoders_train_and_masked_pixels_stay_unseen(sees_only_the_visible):
    method = build()
    mask = method.sample_mask(3, seeded())
    method.zero_grad()
    method(images(), mask).loss.backward()
    idle = [name for name, p in method.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert [name for name in idle if name != "loss_head.bias"] == []  # a constant cancels in differences
    assert all(p.grad is None for p in method.teacher.parameters())
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images(), mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_start": 1.0}, r"tau_start 1 is above tau_end 0.9999"),
        ({"guided_share": 1.2}, "less than or equal to 1"),
        ({"mask": "block"}, "Extra inputs"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        HPM.Config(**options)


def test_it_runs_without_values(trains_without_values):
    trains_without_values(build, (3, 3, 16, 16), (3, 4, 4))
