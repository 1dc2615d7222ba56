"""SparK: its official masks, schedules, groups and weights, and what keeps masked pixels out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers.official_values import GOLDEN, read_arrays, read_json
from helpers.presets import resolved
from helpers.random_inputs import seeded
from mimbench import registry
from mimbench.api import InputError
from mimbench.contract import TrainConfig
from mimbench.convert import recognise
from mimbench.encoders.convnet import ConvNeXt, ResNet
from mimbench.harness.exchange import import_checkpoint
from mimbench.harness.planning.build import build as build_model
from mimbench.harness.planning.checkpoints import find_checkpoint
from mimbench.optim import Schedule, param_groups
from mimbench.parity.golden import read_golden, setup_of
from mimbench.parity.weights import load_weights
from mimbench_methods.spark import SparK


def resnet(side=32, **options):
    config = ResNet.Config(**{"block": "basic", "dims": (8, 16), "depths": (1, 1)} | options)
    return ResNet(config, image_size=side, in_channels=3)


def convnext(side=32, **options):
    config = ConvNeXt.Config(**{"dims": (8, 16), "depths": (1, 1), "layer_scale": 0.1} | options)
    return ConvNeXt(config, image_size=side, in_channels=3)


def build(encoder=convnext, **options):
    torch.manual_seed(0)
    return SparK(SparK.Config(**{"decoder_dim": 16} | options), encoder())


def batch(method):
    return torch.randn(3, 3, 32, 32, generator=seeded()), method.sample_mask(3, seeded(1))


ENCODERS = {"convnext": convnext, "resnet": resnet}


@pytest.mark.parametrize(("side", "ratio", "name"), [(224, 0.6, "spark_7x7_0.6"), (384, 0.75, "spark_12x12_0.75")])
def test_masks_are_the_official_ones_from_the_official_stream(side, ratio, name):
    method = build(lambda: resnet(side, dims=(4,) * 4, depths=(1,) * 4), mask_ratio=ratio, decoder_dim=32)
    expected = read_arrays("mask_exact_a")[0][name]
    for seed in range(10):
        assert torch.equal(method.sample_mask(3, seeded(seed)), expected[seed])
    (case,) = (
        case
        for case in read_json("mask_stats_a")["stats"]
        if case["generator"] == "SparK.mask" and case["settings"]["mask_ratio"] == ratio
    )
    masks = method.sample_mask(2000, seeded())
    assert set(masks.flatten(1).sum(1).tolist()) == {case["count"]["mean"]}
    share = masks.float().mean(0)
    assert share.min().item() == pytest.approx(case["position_prob"]["min"], abs=1e-4)
    assert share.max().item() == pytest.approx(case["position_prob"]["max"], abs=1e-4)


@pytest.mark.parametrize(
    ("case", "preset"), [("A", "imagenet-resnet-50"), ("B", "imagenet-convnext-base")], ids=["A", "B"]
)
def test_each_step_has_the_official_rate_and_weight_decay(case, preset):
    official = read_json("schedules_a")[f"spark_pretrain/{case}"]
    train = resolved(preset, "spark").pretrain
    schedule = train.schedule.model_copy(update={"warmup_epochs": official["wp_ep"]})
    config = TrainConfig(
        **{
            **{name: getattr(train, name) for name in ("batch_size", "base_lr", "lr_divisor", "optimizer", "eps")},
            **{name: getattr(train, name) for name in ("betas", "weight_decay", "final_weight_decay", "clip_grad")},
            "epochs": official["epochs"],
            "schedule": schedule,
        }
    )
    assert list(config.betas) == official["betas"]
    assert (config.eps, config.clip_grad) == (official["lamb_eps"], official["max_grad_norm"])
    plan = Schedule(config, official["n_iter_per_epoch"])
    steps = range(plan.steps)
    assert [plan.lr(step) for step in steps] == pytest.approx(official["lr_at_optimizer_step"], rel=1e-12)
    assert [plan.weight_decay(step) for step in steps] == pytest.approx(official["wd_at_optimizer_step"], rel=1e-12)


@pytest.mark.parametrize("kind", ["resnet", "convnext"])
def test_pretraining_decays_the_official_parameters(kind):
    golden = read_golden(GOLDEN / f"spark_{kind}_tiny.npz")
    setup, code = setup_of(golden)
    method = build_model(setup)
    sources = load_weights(golden, code, method).sources
    train = TrainConfig(epochs=1, batch_size=1, base_lr=1.0)
    decayed = {
        sources[name][0].removeprefix("param/"): group["weight_decay"] > 0
        for group in param_groups(method, train, no_decay=method.no_weight_decay())
        for name in group["names"]
    }
    official = read_json("param_groups_a")[f"spark_pretrain_{kind}"]
    assert decayed == dict.fromkeys(official["decay"], True) | dict.fromkeys(official["no_decay"], False)


@pytest.mark.parametrize("build_encoder", ENCODERS.values(), ids=ENCODERS)
def test_masked_pixels_do_not_reach_the_prediction(build_encoder, sees_only_the_visible):
    method = build(build_encoder).eval()
    images, mask = batch(method)
    assert method.predict(images, mask).shape == method.target(images).shape == (3, 4, 4, 192)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)


@pytest.mark.parametrize("build_encoder", ENCODERS.values(), ids=ENCODERS)
def test_everything_trains_but_the_final_norm(build_encoder, reaches_every_parameter):
    method = build(build_encoder)
    for norm in (module for module in method.encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.ones_(norm.weight)  # timm's initial 0 would keep gradients from the block
    reaches_every_parameter(method, *batch(method))
    frozen = {name for name, p in method.named_parameters() if not p.requires_grad}
    final = {"encoder.body.norm_pre.weight", "encoder.body.norm_pre.bias"}
    assert frozen == (final if build_encoder is convnext else set())


def test_drop_path_acts_in_training_only():
    method = build(lambda: convnext(depths=(1, 3), drop_path=0.9))
    images, mask = batch(method)
    with torch.no_grad():
        assert not torch.equal(method.encode(images, mask)[1], method.encode(images, mask)[1])
        method.eval()
        assert torch.equal(method.encode(images, mask)[1], method.encode(images, mask)[1])


@pytest.mark.parametrize(
    ("build_encoder", "norm", "expected"),
    [
        (resnet, "encoder", "SyncedBatchNorm2d"),
        (convnext, "encoder", "LayerNorm2d"),
        (resnet, "layer", "LayerNorm2d"),
        (convnext, "batch", "SyncedBatchNorm2d"),
        (convnext, "none", "Identity"),
    ],
)
def test_the_norm_of_the_maps_is_that_of_the_encoder_or_of_the_option(build_encoder, norm, expected):
    method = build(build_encoder, norm=norm)
    assert [type(module).__name__ for module in method.norms] == [expected] * 2


def test_the_decoder_gets_the_coarsest_map_first_and_finer_ones_as_it_doubles():
    method = build(decoder_dim=32)
    assert method.levels == [0, 1]
    maps = method.encode(*batch(method))
    assert [tuple(x.shape[1:]) for x in maps] == [(8, 8, 8), (16, 4, 4)]
    dense = method.densify(maps, batch(method)[1])
    assert [tuple(x.shape[1:]) for x in dense] == [(32, 4, 4), (16, 8, 8)]
    assert [module.kernel_size for module in method.project] == [(1, 1), (3, 3)]
    assert method.decode(dense).shape == (3, 3, 32, 32)


def test_the_coarsest_map_enters_as_it_is_if_it_has_the_decoders_channels():
    method = build(decoder_dim=16)
    assert isinstance(method.project[0], torch.nn.Identity)
    images, mask = batch(method)
    (first, _), tokens = method.densify(method.encode(images, mask), mask), method.tokens[0]
    assert torch.equal(first.permute(0, 2, 3, 1)[mask], tokens.view(1, -1).expand(int(mask.sum()), -1))


def test_the_decoder_starts_with_the_official_spread():
    torch.manual_seed(0)
    method = SparK(SparK.Config(decoder_dim=256), convnext())
    block = method.decoder.blocks[0]
    for module, std in ((block.conv[0], 0.02), (block.conv[3], 0.02), (block.up_sample, (2 / (256 * 16)) ** 0.5)):
        assert module.weight.std().item() == pytest.approx(std, rel=0.03)
    assert block.up_sample.bias.abs().max() == method.decoder.pixels.bias.abs().max() == 0
    assert method.tokens[1].abs().max() <= 0.02


def test_the_loss_is_the_mean_over_masked_patches_of_the_batch():
    method = build()
    target = torch.zeros(2, 4, 4, 192)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[1, :2, 0] = True
    prediction = torch.full_like(target, 9.0)
    prediction[0, 0, 0], prediction[1, 0, 0], prediction[1, 1, 0] = 1.0, 2.0, 3.0
    assert method.loss(prediction, target, mask).item() == pytest.approx((1 + 4 + 9) / 3)


def test_pictures_show_the_prediction_with_true_moments(monkeypatch):
    method = build().eval()
    images, mask = batch(method)
    target = method.target(images)
    monkeypatch.setattr(method, "predict", lambda images, mask: target)
    assert torch.allclose(method.reconstruct(images, mask), images, atol=1e-4)
    monkeypatch.setattr(method, "predict", lambda images, mask: torch.zeros_like(target))
    flat = F.interpolate(F.avg_pool2d(images.mean(1, keepdim=True), 8), scale_factor=8).expand_as(images)
    masked = F.interpolate(mask.unsqueeze(1).float(), scale_factor=8).bool()
    assert torch.allclose(method.reconstruct(images, mask), torch.where(masked, flat, images), atol=1e-5)
    assert "true ones" in method.reconstruction_note


@pytest.mark.parametrize(
    ("options", "encoder", "message"),
    [
        (
            {"decoder_dim": 4},
            convnext,
            r"method.decoder_dim 4 is halved 3 times, once per doubling; set it to 8 or more",
        ),
        ({}, lambda: convnext(36, patch_size=6), r"the encoder's stride, 12, is no power of 2"),
        ({"mask_ratio": 0.01}, convnext, r"mask ratio 0.01 "),
    ],
)
def test_what_does_not_fit_is_refused(options, encoder, message):
    with pytest.raises(InputError, match=message):
        build(encoder, **options)


def test_masks_follow_the_image_size():
    method = build()
    method.set_image_size(48)
    assert method.sample_mask(2, seeded()).shape == (2, 6, 6)
    with pytest.raises(InputError, match=r"images of 36 px are no multiple of the encoder's stride, 8 px"):
        method.set_image_size(36)


@pytest.mark.parametrize("encoder", ["vit", "swin"])
def test_it_needs_a_convolutional_encoder(encoder):
    assert not SparK.encoder_needs <= registry.encoders.load(encoder).can


@pytest.mark.parametrize(("kind", "layout"), [("resnet", "timm-resnet"), ("convnext", "convnext")])
def test_official_checkpoints_are_imported_whole(kind, layout, tmp_path):
    """As SparK stores them: {"module": state dict}, with three buffers that nothing uses."""
    golden = read_golden(GOLDEN / f"spark_{kind}_tiny.npz")
    setup, code = setup_of(golden)
    state = golden.group("param/")
    encoder = {key: value for key, value in state.items() if key.startswith("sparse_encoder.sp_cnn.")}
    assert recognise([key.removeprefix("sparse_encoder.sp_cnn.") for key in encoder]).name == layout
    torch.save({"module": {**state, "imn_m": torch.zeros(1, 3, 1, 1)}, "epoch": 1}, tmp_path / "spark.pth")
    size = "resnet-50" if kind == "resnet" else "convnext-base"
    settings = {f"encoder.{name}": value for name, value in setup.encoder_options.items()}
    settings |= {f"method.{name}": value for name, value in setup.method_options.items()}
    imported, folder = import_checkpoint(
        tmp_path / "spark.pth",
        method="spark",
        encoder=size,
        recipe=None,
        settings=settings | {"input.image_size": 96},
        results=tmp_path / "results",
    )
    expected = build_model(setup)
    load_weights(golden, code, expected)
    checkpoint = find_checkpoint(tmp_path / "results", folder.name)
    stored = {f"encoder.{name}": value for name, value in checkpoint.encoder().items()} | checkpoint.rest()
    assert stored.keys() == expected.state_dict().keys()
    assert all(torch.equal(stored[name], value) for name, value in expected.state_dict().items())
    assert set(imported.converted.left_out) <= {"imn_m"}


def test_it_keeps_to_one_device(on_fake_cuda, trains_without_values):
    images, mask = batch(build())
    assert build()(images, mask).loss.isfinite()
    trains_without_values(build, images.shape, mask.shape)
