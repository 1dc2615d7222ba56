"""The linear probe: leaked labels score near best, shuffled ones chance, and small or binary sets go through."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from rich.console import Console

from helpers.hand_made import ENCODER, HandMade, Labelled, blurred, context, leaked, noise
from mimbench.contract import ArraySplit, Dataset, InputError
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.engine.fit import fit
from mimbench.harness.running.features import FrozenFeatures
from mimbench.recipe.document import merge
from mimbench.store.store import Store
from mimbench.testing.colours import Colours
from mimbench_tasks.linear_probe import LinearProbe, LinearProbeConfig

MAE = LinearProbe.protocols["mae"].options


def probe(dataset: Dataset, features, tmp_path, **options):
    return LinearProbe(LinearProbeConfig(**options)).run(ENCODER, dataset, context(HandMade(features), tmp_path))


@pytest.mark.parametrize(("n", "classes"), [(200, 10), (60, 2), (20, 10), (12, 7), (9, 3)])
def test_leaked_labels_score_best_with_any_number_of_classes(n, classes, tmp_path):
    result = probe(Labelled(n, classes), leaked, tmp_path)
    assert result.metrics["top1"].value == result.metrics["top5"].value == 100
    assert result.metrics["top1"].n == n


def test_features_of_nothing_give_chance(tmp_path):
    dataset = Labelled(2000, 10)
    result = probe(dataset, noise, tmp_path)
    assert LinearProbe(LinearProbeConfig()).chance(dataset) == 10
    assert result.metrics["top1"].value == pytest.approx(10, abs=3)
    assert result.metrics["top5"].value == pytest.approx(50, abs=5)


def test_the_regularisation_is_chosen_on_held_out_training_images(tmp_path):
    details = probe(Labelled(200, 10), noise, tmp_path, inverse_regularisation=(1e-4, 1.0)).details
    assert set(details["held_out_top1"]) == {"0.0001", "1"}
    best = max(details["held_out_top1"], key=details["held_out_top1"].get)
    assert details["inverse_regularisation"] == float(best)
    assert probe(Labelled(200, 10), noise, tmp_path, inverse_regularisation=(0.5,)).details["held_out_top1"] == {}


def test_a_class_without_training_images_is_never_right(tmp_path):
    result = probe(Labelled(train=[0, 1] * 10, test=[0, 1, 2, 2]), leaked, tmp_path)
    assert result.metrics["top1"].value == 50


def test_what_it_cannot_probe_is_refused_while_planning():
    def check(options, dataset, encoder=ENCODER):
        LinearProbe(LinearProbeConfig(**options)).check(encoder, dataset)

    with pytest.raises(InputError, match="two or more labelled classes"):
        check({}, Labelled(20, 1))
    with pytest.raises(InputError, match=r"task\.layer 2 is outside this encoder's 2 layers"):
        check({"layer": 2}, Labelled(20, 2))
    swin = Swin(
        SwinConfig(patch_size=2, embed_dim=8, depths=(1,), num_heads=(1,), window=2), image_size=8, in_channels=1
    )
    with pytest.raises(
        InputError, match=r"task\.pooling 'token' needs a class token, which this swin encoder does not have"
    ):
        check({"pooling": "token"}, Labelled(20, 2), swin)
    with pytest.raises(InputError, match=r"task\.train\.batch_size 16384 is more than the 20 training images"):
        check(MAE, Labelled(20, 2))
    with pytest.raises(InputError, match="two or more images in each micro-batch"):
        check(merge(MAE, {"train": {"batch_size": 1}}), Labelled(20, 2))
    with pytest.raises(InputError, match=r"task\.train\.layer_decay 0\.5: the encoder of a probe is frozen"):
        check(merge(MAE, {"train": {"batch_size": 8, "layer_decay": 0.5}}), Labelled(20, 2))
    with pytest.raises(ValueError, match='needs probe = "lbfgs"'):
        LinearProbeConfig(probe="trained", layers="all")
    check({"layer": -2, "pooling": "token"}, Labelled(20, 2))


# --- every layer -----------------------------------------------------------------------------------------------------


def by_depth(labels, which, layer):
    """Layer 0 shows the labels, layer 1 nothing."""
    return leaked(labels, which, layer) if layer == 0 else noise(labels, which, layer)


def test_the_best_layer_is_chosen_without_test_labels_and_reported_with_the_final_one(tmp_path):
    source = HandMade(by_depth)
    task = LinearProbe(LinearProbeConfig(**LinearProbe.protocols["simmim"].options))
    result = task.run(ENCODER, Labelled(200, 10), context(source, tmp_path))
    assert source.passes == 2  # one a split, for all layers
    assert result.curves["top1_by_layer"] == [100, result.metrics["top1"].value]
    assert result.metrics["top1"].value < 30
    assert result.metrics["top1_best_layer"].value == 100
    assert (result.details["layer"], result.details["best_layer"], result.details["best_layer_on_test"]) == (1, 0, 0)
    assert result.curves["held_out_top1_by_layer"][0] == 100


def test_a_layer_that_only_the_test_set_favours_is_not_the_best(tmp_path):
    def make(labels, which, layer):
        shown = leaked(labels, which, layer)
        if layer == 0:
            return blurred(labels, which, layer) if which == "train" else shown
        return shown if which == "train" else noise(labels, which, layer)

    result = probe(Labelled(200, 10), make, tmp_path, layers="all")
    assert (result.details["best_layer"], result.details["best_layer_on_test"]) == (1, 0)
    assert result.metrics["top1_best_layer"].value == result.curves["top1_by_layer"][1] < 50


def test_one_strength_still_ranks_layers_on_held_out_images(tmp_path):
    result = probe(Labelled(200, 10), by_depth, tmp_path, layers="all", inverse_regularisation=(1.0,))
    assert result.details["best_layer"] == 0


def test_one_layer_gives_what_it_gives_among_all(tmp_path):
    alone, among = (probe(Labelled(200, 10), blurred, tmp_path, layers=layers) for layers in ("one", "all"))
    assert alone.metrics["top1"] == among.metrics["top1"]
    assert alone.details["held_out_top1"] == among.details["held_out_top1"]
    assert set(alone.details["absent"]) == {"top1_best_layer"}


# --- trained through the frozen encoder, as MAE's probe --------------------------------------------------------------


def trained(dataset, folder, encoder, **options):
    config = LinearProbeConfig(**merge(MAE, {"augmentation": {"crop_scale": [0.9, 1.0]}} | options))
    ready = context(None, folder)
    store, device = Store(folder / "store"), torch.device("cpu")
    features = FrozenFeatures(encoder, ready.input, device, {}, store, say=ready.say)
    trainer = functools.partial(fit, seed=0, device=device, workdir=folder / "training", console=Console(quiet=True))
    ready = context(features, folder, fit=trainer)
    return LinearProbe(config).run(encoder, dataset, ready)


def colour_encoder():
    torch.manual_seed(0)
    return type(ENCODER)(ENCODER.config, image_size=8, in_channels=3).train()


def test_the_encoder_is_frozen_and_only_the_head_is_trained(tmp_path):
    encoder, modes = colour_encoder(), []
    encoder.body.norm.register_forward_hook(lambda m, i, o: modes.append((m.training, o.requires_grad)))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    train = {"epochs": 2, "batch_size": 48, "base_lr": 4.0, "lr_divisor": None, "schedule": {"warmup_epochs": 0}}
    result = trained(Colours("plain", tmp_path), tmp_path, encoder, train=train)
    assert set(modes) == {(False, False)}
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert result.cost.steps == 2 * (240 // 48)
    assert len(result.curves["loss"]) == 2
    assert result.details["feature_dim"] == 16


def test_its_checkpoints_contain_only_the_head(tmp_path):
    trained(
        Colours("plain", tmp_path),
        tmp_path,
        colour_encoder(),
        train={"epochs": 1, "batch_size": 120, "schedule": {"warmup_epochs": 0}},
    )
    (state_file,) = (tmp_path / "training").glob("*.pth")
    state = torch.load(state_file, weights_only=True)["model"]
    assert {name.removeprefix("trainable.") for name in state} == {
        "head.0.running_mean", "head.0.running_var", "head.0.num_batches_tracked", "head.1.weight", "head.1.bias",
    }  # fmt: skip


def test_the_mae_protocol_has_the_values_of_the_official_script():
    config = LinearProbeConfig(**MAE)
    assert config.train.lr == pytest.approx(6.4)
    assert (config.train.optimizer, config.train.momentum, config.train.weight_decay) == ("lars", 0.9, 0.0)
    assert (config.train.epochs, config.train.schedule.warmup_epochs, config.init_std) == (90, 10, 0.01)
    assert (config.pooling, config.augmentation.flip, config.augmentation.crop_scale) == ("token", 0.5, (0.08, 1.0))


def test_a_protocol_names_what_counts_for_its_probe_only():
    lbfgs, mae = (LinearProbe(LinearProbeConfig(**options)).protocol() for options in ({}, MAE))
    assert "train" not in lbfgs
    assert "augmentation" not in lbfgs
    assert "held_out" not in mae
    assert mae["train"]["batch_size"] == 16384
    assert LinearProbe(LinearProbeConfig(train={"epochs": 7})).protocol() == lbfgs


@pytest.mark.parametrize("name", sorted(LinearProbe.protocols))
def test_every_value_of_a_protocol_has_a_source(name):
    protocol = LinearProbe.protocols[name]
    LinearProbeConfig(**protocol.options)
    for key in protocol.options:
        assert protocol.sources[key].startswith(("mimbench", "facebookresearch/", "microsoft/", "arXiv:")), key


def test_a_head_starts_as_mae_starts_it():
    from mimbench.toolkit.trained_probe import _build_head

    norm, linear = _build_head(200, 50, 0.01, seed=3)
    assert (norm.affine, norm.eps) == (False, 1e-6)
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert not linear.bias.any()
    assert torch.equal(linear.weight, _build_head(200, 50, 0.01, seed=3)[1].weight)
    assert not torch.equal(linear.weight, _build_head(200, 50, 0.01, seed=4)[1].weight)


# --- a sweep of features and rates, as DINOv2's ----------------------------------------------------------------------

DINOV2 = LinearProbe.protocols["dinov2"].options
SHORT = {"convention": "plain", "warmup_epochs": 0}
BRIEF = {
    "rates": [0.5, 5.0],
    "blocks": [1, 2],
    "train": {
        "steps": 10,
        "batch_size": 24,
        "lr_divisor": None,
        "schedule": {"convention": "plain", "warmup_epochs": 0},
    },
}


def test_a_sweep_reads_last_blocks_after_the_final_norm():
    task = LinearProbe(
        LinearProbeConfig(**merge(DINOV2, {"blocks": [1, 2], "poolings": ["mean", "token", "mean+token"]}))
    )
    encoder, images = ENCODER.eval(), torch.randn(3, 1, 8, 8)
    first, last = encoder.forward_layers(encoder.embed(images), final_norm=False)
    normed = [encoder.body.norm(one.sequence) for one in (first, last)]
    read = task._sweep(encoder).read(encoder, images)
    assert torch.equal(read["token of 1 block"], normed[1][:, 0])
    assert torch.equal(read["token of 1 block"], encoder.features(images).pool("token"))
    tokens, means = ([one(x) for x in normed] for one in (lambda x: x[:, 0], lambda x: x[:, 1:].mean(1)))
    torch.testing.assert_close(read["token of 2 blocks"], torch.cat(tokens, 1))
    torch.testing.assert_close(read["mean of 2 blocks"], torch.cat(means, 1))
    torch.testing.assert_close(read["mean+token of 2 blocks"], torch.cat((*tokens, means[1]), 1))
    torch.testing.assert_close(read["mean+token of 1 block"], torch.cat((tokens[1], means[1]), 1))


def test_a_sweep_reports_the_features_and_the_rate_that_held_out_images_choose(tmp_path):
    result = trained(Colours("faint", tmp_path), tmp_path, colour_encoder(), **merge(DINOV2, BRIEF))
    details = result.details
    kinds = [f"{pooling} of {blocks}" for blocks in ("1 block", "2 blocks") for pooling in ("token", "mean+token")]
    assert list(details["chosen"]) == list(details["top1"]) == kinds
    assert (len(details["held_out_top1"]), details["held_out_images"]) == (4 * 2, 24)
    assert details["chosen"][details["best_head"]]["held_out_top1"] == max(details["held_out_top1"].values())
    assert result.metrics["top1"].value == details["top1"][details["best_head"]]
    assert set(details["absent"]) == {"top1_best_layer"}
    assert result.cost.steps == 10


def test_the_dinov2_protocol_has_the_values_of_the_official_script():
    config = LinearProbeConfig(**DINOV2)
    assert len(config.blocks) * len(config.poolings) * len(config.rates) == 52
    assert [rate * config.train.lr_scale for rate in config.rates][::12] == [4e-5, 0.4]
    assert (config.train.optimizer, config.train.steps, config.train.weight_decay) == ("sgd", 12_500, 0)
    assert config.train.schedule.has_warmup is False
    protocol = LinearProbe(config).protocol()
    assert protocol.keys() >= {"train", "augmentation", "held_out", "layer"}
    assert not protocol.keys() & {"pooling", "layers", "inverse_regularisation", "max_iterations"}
    assert not LinearProbe(LinearProbeConfig()).protocol().keys() & {"blocks", "poolings", "rates", "last_layers"}
    other = LinearProbe(LinearProbeConfig(**merge(DINOV2, {"blocks": [1, 2]}))).protocol()
    assert other["blocks"] == [1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blocks": [1, 4]}, r"task\.blocks 4 is more than the 2 layers up to task\.layer"),
        ({"blocks": [2], "layer": 0}, r"task\.blocks 2 is more than the 1 layers up to task\.layer"),
        ({"train": {"batch_size": 19}}, r"task\.train\.batch_size 19 is more than the 18 training images"),
    ],
)
def test_what_a_sweep_cannot_read_is_refused_while_planning(options, words):
    fitting = {"blocks": [1], "train": {"batch_size": 8}}
    with pytest.raises(InputError, match=words):
        LinearProbe(LinearProbeConfig(**merge(merge(DINOV2, fitting), options))).check(ENCODER, Labelled(20, 2))
    swin = Swin(
        SwinConfig(patch_size=2, embed_dim=8, depths=(1,), num_heads=(1,), window=2), image_size=8, in_channels=1
    )
    with pytest.raises(InputError, match=r"task\.poolings: pooling 'token' needs a class token"):
        LinearProbe(LinearProbeConfig(**merge(DINOV2, fitting))).check(swin, Labelled(20, 2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probe": "sweep", "last_layers": 2}, "a sweep has blocks"),
        ({"layers": "all", "last_layers": 2}, "last_layers needs"),
        ({"rates": [0.0]}, "rates above 0"),
        ({"blocks": [0]}, "blocks must be 1 or more"),
        ({"blocks": [1, 1]}, "blocks names one value twice"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LinearProbeConfig(**options)


def test_the_last_layers_are_probed_side_by_side(tmp_path):
    def make(labels, which, layer):
        return leaked(labels, which, layer) if layer == -2 else noise(labels, which, layer)

    result = probe(Labelled(200, 10), make, tmp_path, last_layers=2)
    assert (result.metrics["top1"].value, result.details["feature_dim"]) == (100, 20)
    assert probe(Labelled(200, 10), make, tmp_path).metrics["top1"].value < 30


def test_splits_of_scenes_are_refused():
    class Scenes(Labelled):
        def split(self, name):
            return object()

    with pytest.raises(InputError, match="no labelled images, only scenes"):
        LinearProbe(LinearProbeConfig()).check(ENCODER, Scenes(20, 2))
    assert isinstance(Labelled(20, 2).split("train"), ArraySplit)
    assert np.unique(Labelled(20, 2).split("train").labels.numpy()).tolist() == [0, 1]
