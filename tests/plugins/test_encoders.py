"""Encoders of unknown kinds as plugins work with each method and task whose needs they meet."""

from __future__ import annotations

import json

import pytest
from plugins.mixer import Mixer
from plugins.poolformer import PoolFormer

from helpers.refusals import refused
from mimbench import registry
from mimbench.contract import InputError
from mimbench.testing import encoder_suite, parametrize_checks

SMOKE = ("--recipe", "smoke", "--set", "encoder.name=mixer")
POOLED = ("--recipe", "smoke", "--set", "encoder.name=poolformer")


@parametrize_checks(encoder_suite(Mixer, image_size=28, channels=1))
def test_the_mixer_passes_the_checks_for_encoders(check):
    check()


@parametrize_checks(encoder_suite(PoolFormer, {"dims": (8, 16, 8), "depths": (2, 1, 1)}))
def test_poolformer_passes_the_checks_for_encoders(check):
    check()


@pytest.mark.usefixtures("registered")
def test_it_pretrains_with_controls_and_methods_whose_needs_it_meets(quick):
    methods = "random-init,supervised,autoencoder,simmim"
    done = quick("run", "--method", methods, "--task", "linear-probe", *SMOKE, "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert [record["method"]["name"] for record in records] == methods.split(",")
    assert {record["recipe"]["encoder"]["name"] for record in records} == {"mixer"}
    assert all(0 <= record["metrics"]["top1"]["value"] <= 100 for record in records)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("method", "task", "message"),
    [
        (
            "mae",
            "knn",
            r"method 'mae' (mimbench {version}) needs an encoder that can drop masked patches; mixer "
            "(plugins-of-tests 0.1) cannot; these can: ",
        ),
        (
            "random-init",
            "segmentation",
            r"task 'segmentation' (mimbench {version}) needs an encoder that can take images of other sizes than "
            "input.image_size; mixer (plugins-of-tests 0.1) cannot; these can: ",
        ),
        (
            "random-init",
            "finetune",
            r"task.drop_path 0.05 is not for this mixer encoder, which has no such option; leave it out, or set it to "
            "none if the protocol has it (--set task.drop_path=none)",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_while_planning(quick, method, task, message):
    version = registry.methods.owner("mae").split()[1]
    done = quick("run", "--method", method, "--task", task, *SMOKE, "--dry-run")
    refused(done, message.replace("{version}", version))


@pytest.mark.usefixtures("registered")
def test_it_is_fine_tuned_without_drop_path(quick):
    done = quick("run", "--method", "random-init", "--task", "finetune", *SMOKE, "--set", "task.drop_path=none")
    assert done.returncode == 0, done.stderr
    done = quick(
        *("run", "--method", "random-init", "--task", "finetune", *SMOKE, "--set", "task.drop_path=none"),
        *("--set", "task.image_size=32"),
    )
    assert done.returncode == 2
    assert "task.image_size 32 px needs an encoder that can take images of other sizes" in done.stderr


@pytest.mark.usefixtures("registered")
def test_show_prints_abilities_and_needs(quick):
    assert "can: mask-tokens, one-grid, separate-patches\n" in quick("show", "encoder", "mixer").stdout
    assert "needs of the encoder: any-size\n" in quick("show", "task", "segmentation").stdout
    refused = quick("show", "recipe", "smoke", "--method", "mae", "--set", "encoder.name=mixer")
    assert refused.returncode == 2
    assert "method 'mae'" in refused.stderr
    assert "mixer (plugins-of-tests 0.1) cannot" in refused.stderr


@pytest.mark.usefixtures("registered")
def test_poolformer_pretrains_and_serves_dense_tasks(quick):
    done = quick("run", "--method", "simmim,spark", "--task", "knn,detection", *POOLED, "--dry-run")
    refused(done, "method 'spark' (mimbench 0.1.0) needs an encoder that can convolve visible cells only")
    done = quick("run", "--method", "simmim", "--task", "knn,detection", *POOLED, "--json")
    assert done.returncode == 0, done.stderr
    records = {record["task"]["name"]: record for record in json.loads(done.stdout)}
    assert set(records) == {"knn", "detection"}
    assert records["knn"]["recipe"]["encoder"] == {
        "name": "poolformer",
        "patch_size": 2,
        "dims": [16, 32],
        "depths": [1, 1],
    }
    assert 0 < records["knn"]["metrics"]["top1_k20"]["value"] <= 100
    assert 0 <= records["detection"]["metrics"]["AP"]["value"] <= 100


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "mae", "--task", "knn"), "needs an encoder that can drop masked patches; poolformer"),
        (("--method", "beit", "--task", "knn"), "keep the grid of its patches up to the last map; poolformer"),
        (
            ("--method", "simmim", "--task", "knn", "--set", "encoder.dims=[8,8]"),
            "other channels than the stage before",
        ),
        (
            ("--method", "simmim", "--task", "knn", "--set", "encoder.patch_size=4"),
            "not a multiple of the stride, 8 px",
        ),
    ],
)
def test_what_poolformer_cannot_do_is_refused_while_planning(quick, arguments, words):
    refused(quick("run", *arguments, *POOLED, "--dry-run"), words)


def test_poolformer_takes_the_layers_of_all_stages():
    with pytest.raises(InputError, match="one number per stage"):
        PoolFormer(PoolFormer.Config(dims=(8, 16), depths=(1,)), image_size=28, in_channels=1)
    encoder = PoolFormer(PoolFormer.Config(dims=(8, 16), depths=(2, 1)), image_size=28, in_channels=1)
    assert encoder.pyramid_strides == (2, 4)
    depths = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert depths["stem.weight"] == 0
    assert depths["stages.0.blocks.1.mlp.fc1.weight"] == 2
    assert depths["stages.1.downsample.conv.weight"] == depths["stages.1.blocks.0.norm1.weight"] == 3
    assert depths["norm.weight"] == 4
