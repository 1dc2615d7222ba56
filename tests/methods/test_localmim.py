"""LocalMIM: against the official code; its scales, weights of the loss, and refusals."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from helpers.official_values import GOLDEN, check_decay, check_rates, read_json
from helpers.other_sizes import other_sizes
from helpers.presets import resolved
from helpers.random_inputs import images, seeded
from mimbench.contract import InputError
from mimbench.convert import recognise, to_method
from mimbench.encoders.vit import ViT
from mimbench.harness.planning.build import build as build_model
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden, setup_of
from mimbench_methods._hog import Histograms, hog
from mimbench_methods.localmim import LocalMIM

GOLDEN_FILE = GOLDEN / "localmim_vit_tiny.npz"
PARTS = {"norm.3.": "encoder.body.norm.", "norm.": "norms.", "decoder.": "decoders."}
"""Official names outside of the encoder -> here."""
SMALL = {"layers": (0, 1, -1), "cells": (2, 4, 8), "decoder_dim": 8, "decoder_heads": 2}


def build(patch=4, image_size=16, depth=3, **options) -> LocalMIM:
    torch.manual_seed(0)
    config = ViT.Config(patch_size=patch, embed_dim=16, depth=depth, num_heads=2, position="sincos")
    return LocalMIM(LocalMIM.Config(**SMALL | options), ViT(config, image_size=image_size, in_channels=3))


def test_the_mask_is_the_official_one():
    """The noise of the file is what torch's generator gave."""
    golden = read_golden(GOLDEN_FILE)
    method = build(patch=16, image_size=96, cells=(8, 16, 32))
    assert torch.equal(method.sample_mask(2, seeded(golden.meta["seed"])), golden.mask())
    assert torch.equal(torch.rand(2, 36, generator=seeded(golden.meta["seed"])), golden.tensor("input/noise"))


@pytest.mark.parametrize("case", ["A", "B"])
def test_pretraining_has_the_official_rates(case):
    official = read_json("lr_schedule_b")[f"localmim_pretrain/{case}"]
    check_rates(resolved("imagenet-vit-base", "localmim").pretrain, official)


def test_the_official_parameters_are_decayed():
    method = build_model(setup_of(read_golden(GOLDEN_FILE))[0])
    check_decay(method, read_json("decay_groups_b")["localmim_pretrain"], PARTS)


@pytest.mark.parametrize("bias", [False, True])
def test_nothing_depends_on_the_sizes(bias, tmp_path):
    config = {"img_size": 64, "patch_size": 8, "in_chans": 1, "embed_dim": 32, "depth": 8, "num_heads": 2}
    config |= {"decoder_embed_dim": 12, "decoder_num_heads": 3, "decoder_depth": 2, "mlp_ratio": 3, "hog_nbins": 6}
    config |= {"layers": [1, 3, 5, 7], "hog_cells": [2, 4, 8, 16], "mask_ratio": 0.5, "hog_bias": bias}
    noise = torch.rand(2, 64, generator=seeded())
    mask = torch.ones(2, 64).scatter(1, noise.argsort(1)[:, :32], 0).view(2, 8, 8)
    inputs = {"image": torch.randn(2, 1, 64, 64, generator=seeded()), "mask": mask.long(), "noise": noise}
    path = other_sizes("localmim_vit_tiny", config, inputs, tmp_path / "other.npz")
    result = compare(read_golden(path))
    assert [row.quantity for row in result.rows if not row.passed] == []
    assert {"output pred_3", "output aux/target_0"} <= {row.quantity for row in result.rows}


def test_the_official_checkpoint_is_read_whole():
    golden = read_golden(GOLDEN_FILE)
    state = golden.group("param/")
    assert recognise(state).name == "localmim"
    converted = to_method(state, recognise(state), build_model(setup_of(golden)[0]))
    assert set(converted.left_out) == {
        name
        for name in state
        if name.startswith(("decoder", "hog_enc")) and name.endswith(("pos_embed", "conv.weight"))
    }
    assert converted.missing == ()
    assert torch.equal(converted.state["encoder.body.norm.weight"], state["norm.3.weight"])
    assert torch.equal(converted.state["norms.2.weight"], state["norm.2.weight"])


def test_a_random_bias_shifts_the_gradients_and_is_stored():
    flat = torch.ones(1, 1, 8, 8)
    assert hog(flat, 5, 8).sum() == 0
    shifted = hog(flat, 5, 8, torch.tensor([1.0, 1.0]))  # every gradient is (1, 1), at 45 degrees
    assert shifted.flatten().tolist() == pytest.approx([0, 64 * 2**0.5, 0, 0, 0])
    torch.manual_seed(0)
    module = Histograms(18, 4, random_bias=True)
    assert "bias" in module.state_dict()
    assert module.bias.abs().max() <= 1 / 3
    assert not list(module.parameters())
    assert Histograms(9, 4).state_dict() == {}
    golden = read_golden(GOLDEN_FILE)  # the first of the two official filters is the horizontal one
    assert golden.tensor("param/hog_enc.0.conv.weight")[0, 0].tolist() == [[1, 0, -1], [2, 0, -2], [1, 0, -1]]


def test_weights_are_the_masked_share_of_each_square():
    method = build()
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 3] = True
    assert method.weights(mask, 8).tolist() == [[0.25, 0.0, 0.5, 0.5]]
    assert torch.equal(method.weights(mask, 4), mask.flatten(1).float())
    fine = method.weights(mask, 2).view(8, 8)
    assert fine[:2, :2].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert fine.sum() == 4 * mask.sum()


def test_the_loss_adds_the_scales_each_with_its_own_mean():
    method = build()
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = True
    target = torch.zeros(1, 64 + 16 + 4, 27)
    prediction = torch.zeros_like(target)
    prediction[:, 0], prediction[:, 64], prediction[:, 80] = 2.0, 3.0, 4.0
    assert method.losses(prediction, target, mask).tolist() == pytest.approx([4 / 4, 9.0, 16.0])
    assert method.loss(prediction, target, mask).item() == pytest.approx(26.0)


def test_targets_and_predictions_have_one_row_per_square(sees_only_the_visible, reaches_every_parameter):
    method = build()
    mask = method.sample_mask(3, seeded())
    assert method.predict(images(), mask).shape == method.target(images()).shape == (3, 64 + 16 + 4, 27)
    reaches_every_parameter(method, images(), mask)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images(), mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (1, -1)}, "2 layers need as many cells, not 3"),
        ({"layers": (0, 1, 2)}, "the last of layers must be -1"),
    ],
)
def test_options_that_disagree_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        LocalMIM.Config(**SMALL | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (1, 0, -1)}, r"layers \(1, 0, -1\) of 3 layers must rise"),
        ({"layers": (0, 7, -1)}, "layer 7 is outside this encoder's 3 layers"),
        ({"cells": (3, 4, 8)}, "squares of 3 px do not suit patches of 4 px"),
        ({"cells": (2, 4, 16)}, "squares of 16 px do not suit"),
        ({"cells": (0, 4, 8)}, "squares of 0 px do not suit"),
        ({"mask_ratio": 0.97}, "masks everything"),
    ],
)
def test_what_does_not_fit_the_encoder_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(**options)
    if "cells" in options:
        with pytest.raises(InputError, match="8 px do not suit patches of 4 px in an image of 28 px"):
            build(image_size=28)


def test_it_runs_without_values(trains_without_values):
    trains_without_values(build, (3, 3, 16, 16), (3, 4, 4))
