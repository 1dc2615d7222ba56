"""FCMAE: its official masks, rates, groups, weights and conversion, and the response norm over a batch."""

from __future__ import annotations

import pytest
import torch

from helpers.official_values import GOLDEN, read_arrays, read_json
from helpers.presets import resolved
from helpers.random_inputs import seeded
from mimbench.contract import InputError, TrainConfig
from mimbench.convert import recognise, to_encoder, to_timm
from mimbench.encoders.convnet import ConvNeXt
from mimbench.harness.exchange import import_checkpoint
from mimbench.harness.planning.build import build as build_model
from mimbench.harness.planning.checkpoints import find_checkpoint
from mimbench.optim import Schedule, decay_rules, param_groups
from mimbench.parity.golden import read_golden, setup_of
from mimbench.parity.weights import load_weights
from mimbench_methods.fcmae import FCMAE


def convnext(side=32, **options):
    config = ConvNeXt.Config(**{"dims": (8, 16), "depths": (1, 1), "grn": True, "layer_scale": None} | options)
    return ConvNeXt(config, image_size=side, in_channels=3)


def build(encoder=convnext, **options):
    torch.manual_seed(0)
    return FCMAE(FCMAE.Config(**{"decoder_dim": 16} | options), encoder())


def shaken(method):
    """Response norms begin at zero, and would do nothing."""
    for name, parameter in method.named_parameters():
        if ".grn." in name:
            torch.nn.init.normal_(parameter, generator=seeded())
    return method


def batch(method):
    return torch.randn(3, 3, 32, 32, generator=seeded()), method.sample_mask(3, seeded(1))


def golden_method():
    golden = read_golden(GOLDEN / "fcmae_convnextv2_tiny.npz")
    setup, code = setup_of(golden)
    method = build_model(setup)
    return golden, setup, method, load_weights(golden, code, method).sources


def test_masks_are_the_official_ones_from_the_official_stream():
    method = build(lambda: convnext(224, dims=(4,) * 4, depths=(1,) * 4))
    expected = read_arrays("mask_exact_a")[0]["fcmae_7x7_0.6"]
    for seed in range(10):
        assert torch.equal(method.sample_mask(3, seeded(seed)), expected[seed])
    (case,) = (case for case in read_json("mask_stats_a")["stats"] if case["generator"].startswith("FCMAE"))
    masks = method.sample_mask(2000, seeded())
    assert set(masks.flatten(1).sum(1).tolist()) == {case["count"]["mean"]}
    share = masks.float().mean(0)
    assert share.min().item() == pytest.approx(case["position_prob"]["min"], abs=1e-4)
    assert share.max().item() == pytest.approx(case["position_prob"]["max"], abs=1e-4)


@pytest.mark.parametrize("case", ["A", "B"])
def test_each_step_has_the_official_rate(case):
    official = read_json("schedules_a")[f"fcmae_pretrain/{case}"]
    train = resolved("imagenet-convnext-base", "fcmae").pretrain
    update = {
        "epochs": official["epochs"],
        "schedule": train.schedule.model_copy(update={"warmup_epochs": official["warmup_epochs"]}),
    }
    config = train.model_copy(update=update)
    assert (list(config.betas), config.eps) == (official["betas"], official["eps"])
    plan = Schedule(config, official["n_iter_per_epoch"])
    steps = range(plan.steps)
    assert [plan.lr(step) for step in steps] == pytest.approx(official["lr_at_optimizer_step"], rel=1e-12)
    assert [plan.weight_decay(step) for step in steps] == official["wd_at_optimizer_step"]


def test_pretraining_decays_the_official_parameters_response_norms_too():
    _, _, method, sources = golden_method()
    train = TrainConfig(epochs=1, batch_size=1, base_lr=1.0)
    decayed = {
        sources[name][0].removeprefix("param/"): group["weight_decay"] > 0
        for group in param_groups(method, train, **decay_rules(method))
        for name in group["names"]
    }
    official = read_json("param_groups_a")["fcmae_pretrain"]
    assert decayed == dict.fromkeys(official["decay"], True) | dict.fromkeys(official["no_decay"], False)


def test_sparse_weights_become_dense_ones_as_officially():
    golden, _, method, _ = golden_method()
    dense = golden.group("param_dense/")
    sparse = {key: value for key, value in golden.group("param/").items() if key.startswith("encoder.")}
    assert recognise(dense).name == recognise(sparse).name == "convnext"
    expected = to_encoder(dense, recognise(dense), method.encoder)
    converted = to_encoder(sparse, recognise(sparse), method.encoder)
    assert converted.state.keys() == expected.state.keys()
    assert all(torch.equal(converted.state[name], value) for name, value in expected.state.items())


def test_official_checkpoints_are_imported_whole_and_exported_to_timm(tmp_path):
    import timm

    golden, setup, expected, _ = golden_method()
    torch.save({"model": golden.group("param/"), "epoch": 1}, tmp_path / "fcmae.pth")
    settings = {f"encoder.{name}": setup.encoder_options[name] for name in ("dims", "depths")}
    settings |= {f"method.{name}": value for name, value in setup.method_options.items()}
    _, folder = import_checkpoint(
        tmp_path / "fcmae.pth",
        method="fcmae",
        encoder="convnext-base",
        recipe=None,
        settings=settings | {"input.image_size": 96},
        results=tmp_path / "results",
    )
    checkpoint = find_checkpoint(tmp_path / "results", folder.name)
    stored = {f"encoder.{name}": value for name, value in checkpoint.encoder().items()} | checkpoint.rest()
    assert stored.keys() == expected.state_dict().keys()
    assert all(torch.equal(stored[name], value) for name, value in expected.state_dict().items())
    model = timm.models.convnext.ConvNeXt(
        depths=setup.encoder_options["depths"], dims=setup.encoder_options["dims"], use_grn=True, ls_init_value=None,
        num_classes=0, head_norm_first=True, norm_eps=1e-6,
    )  # fmt: skip
    model.load_state_dict(to_timm(checkpoint.encoder()), strict=True)
    images = golden.images()
    ours = expected.eval().encoder.features(images).dense
    assert torch.allclose(model.eval().forward_features(images), ours, atol=1e-5)


@pytest.mark.parametrize("size", ["convnext-atto", "convnext-base"])
def test_an_import_finds_out_that_an_encoder_is_a_v2(size):
    from mimbench.convert.encoder_sizes import describe_encoder

    state = read_golden(GOLDEN / "fcmae_convnextv2_tiny.npz").group("param/")
    options = describe_encoder(state, recognise(state), size).options
    assert (options["grn"], options["layer_scale"], options["patch_size"]) == (True, None, 4)
    first = read_golden(GOLDEN / "spark_convnext_tiny.npz").group("param/sparse_encoder.sp_cnn.")
    options = describe_encoder(first, recognise(first), size).options
    assert not options["grn"]
    assert "layer_scale" not in options


def test_the_other_images_change_a_prediction_and_masked_pixels_do_not(sees_only_the_visible):
    method = shaken(build()).eval()
    images, mask = batch(method)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)
    other = torch.cat((images[:1], torch.randn(2, 3, 32, 32, generator=seeded(7))))
    with torch.no_grad():
        assert not torch.allclose(method.predict(images, mask)[0], method.predict(other, mask)[0], atol=1e-4)
        features = method.encoder.features(images).dense[0], method.encoder.features(other).dense[0]
    assert torch.allclose(*features, atol=1e-5)  # afterwards each image is by itself


@pytest.mark.parametrize("init", ["official", "encoder"])
def test_everything_trains_but_the_final_norm(init, reaches_every_parameter):
    method = shaken(build(init=init))
    reaches_every_parameter(method, *batch(method))
    frozen = {name for name, p in method.named_parameters() if not p.requires_grad}
    assert frozen == {"encoder.body.norm_pre.weight", "encoder.body.norm_pre.bias"}


def test_it_trains_in_bf16(trains_in_bf16):
    method = build(init="encoder")
    trains_in_bf16(method, *batch(method))


def test_initial_weights_have_the_official_spread():
    torch.manual_seed(0)
    encoder = ConvNeXt(
        ConvNeXt.Config(dims=(64, 128), depths=(1, 1), grn=True, layer_scale=None), image_size=32, in_channels=3
    )
    method = FCMAE(FCMAE.Config(decoder_dim=128), encoder)
    spread = {name: p.std().item() for name, p in method.named_parameters() if name.endswith("weight") and p.ndim > 1}
    wide = 0.88  # of a normal distribution cut at two standard deviations
    expected = {
        "encoder.body.stem.0.weight": wide,
        "encoder.body.stages.0.blocks.0.conv_dw.weight": wide,
        "encoder.body.stages.0.blocks.0.mlp.fc1.weight": wide,
        "encoder.body.stages.0.blocks.0.mlp.fc2.weight": wide,
        "encoder.body.stages.1.downsample.1.weight": 0.02,
        "project.weight": wide,
        "decoder.0.conv_dw.weight": wide,
        "decoder.0.mlp.fc1.weight": (1 / 128 / 3) ** 0.5,  # torch's default
        "decoder.0.mlp.fc2.weight": (1 / 512 / 3) ** 0.5,
        "head.weight": wide,
    }
    assert {name: spread[name] for name in expected} == pytest.approx(expected, rel=0.05)
    plain = FCMAE(FCMAE.Config(decoder_dim=128, init="encoder"), encoder)
    assert plain.head.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_pictures_show_the_prediction(norm_pixels, monkeypatch):
    method = build(norm_pixels=norm_pixels).eval()
    images, mask = batch(method)
    target = method.target(images)
    monkeypatch.setattr(method, "predict", lambda images, mask: target)
    assert torch.allclose(method.reconstruct(images, mask), images, atol=1e-4)
    assert bool(method.reconstruction_note) is norm_pixels


@pytest.mark.parametrize(
    ("options", "encoder", "message"),
    [
        ({}, lambda: convnext(grn=False), r"needs an encoder that can normalise responses over each map \(option grn"),
        ({"mask_ratio": 0.999}, convnext, r"mask ratio 0.999 "),
    ],
)
def test_what_does_not_fit_is_refused(options, encoder, message):
    with pytest.raises(InputError, match=message):
        build(encoder, **options)


def test_it_keeps_to_one_device(trains_without_values):
    images, mask = batch(build())
    trains_without_values(build, images.shape, mask.shape)
