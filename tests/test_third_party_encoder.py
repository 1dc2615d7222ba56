"""An encoder of a third party and of an unknown kind works with each method and task whose needs it meets."""

from __future__ import annotations

import json

import pytest

SMOKE = ("--recipe", "smoke", "--set", "encoder.name=mixer")


@pytest.fixture
def mixer(tmp_path, monkeypatch):
    """A package with the encoder `mixer`, as metadata on the import path."""
    package = tmp_path / "site" / "mim_timm-0.1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mim-timm\nVersion: 0.1\n")
    (package / "entry_points.txt").write_text("[mimbench.encoders]\nmixer = helpers.mixer:Mixer\n")
    monkeypatch.syspath_prepend(str(package.parent))


@pytest.mark.usefixtures("mixer")
def test_it_pretrains_with_controls_and_methods_whose_needs_it_meets(quick):
    methods = "random-init,supervised,autoencoder,simmim"
    done = quick("run", "--method", methods, "--task", "linear-probe", *SMOKE, "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert [record["method"]["name"] for record in records] == methods.split(",")
    assert {record["recipe"]["encoder"]["name"] for record in records} == {"mixer"}
    assert all(0 <= record["metrics"]["top1"]["value"] <= 100 for record in records)


@pytest.mark.usefixtures("mixer")
@pytest.mark.parametrize(
    ("method", "task", "message"),
    [
        (
            "mae",
            "knn",
            r"method 'mae' (mimbench {version}) needs an encoder that can drop masked patches; mixer (mim-timm 0.1) "
            "cannot; these can: ",
        ),
        (
            "random-init",
            "segmentation",
            r"task 'segmentation' (mimbench {version}) needs an encoder that can take images of other sizes than "
            "input.image_size; mixer (mim-timm 0.1) cannot; these can: ",
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
    from mimbench import registry

    version = registry.methods.owner("mae").split()[1]
    done = quick("run", "--method", method, "--task", task, *SMOKE, "--dry-run")
    assert done.returncode == 2
    assert message.replace("{version}", version) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("mixer")
def test_it_is_fine_tuned_without_drop_path(quick):
    done = quick("run", "--method", "random-init", "--task", "finetune", *SMOKE, "--set", "task.drop_path=none")
    assert done.returncode == 0, done.stderr
    done = quick(
        *("run", "--method", "random-init", "--task", "finetune", *SMOKE, "--set", "task.drop_path=none"),
        *("--set", "task.image_size=32"),
    )
    assert done.returncode == 2
    assert "task.image_size 32 px needs an encoder that can take images of other sizes" in done.stderr


@pytest.mark.usefixtures("mixer")
def test_show_prints_abilities_and_needs(quick):
    assert "can: mask-tokens, one-grid, separate-patches\n" in quick("show", "encoder", "mixer").stdout
    assert "needs of the encoder: any-size\n" in quick("show", "task", "segmentation").stdout
    refused = quick("show", "recipe", "smoke", "--method", "mae", "--set", "encoder.name=mixer")
    assert refused.returncode == 2
    assert "method 'mae'" in refused.stderr
    assert "mixer (mim-timm 0.1) cannot" in refused.stderr
