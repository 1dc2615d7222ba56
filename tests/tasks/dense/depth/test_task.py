"""The depth task: what it learns, its heads, its protocols, and what is refused."""

from __future__ import annotations

import pytest
import torch

from helpers.tiny_dense import context
from helpers.tiny_segmentation import swin, vit
from mimbench.contract import InputError
from mimbench.data import open_dataset
from mimbench.recipe.document import source_of
from mimbench_tasks.dense.depth.config import DepthConfig
from mimbench_tasks.dense.depth.heads import DepthOutput, DPTDepth, build_depth_head
from mimbench_tasks.dense.depth.scores import score_image
from mimbench_tasks.dense.depth.task import DepthTask

SMALL = {"train_scenes": 16, "test_scenes": 4, "size": 64, "scale": 1.5}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return open_dataset("depth-scenes", SMALL, tmp_path_factory.mktemp("cache"))


def depth(**options):
    train = {"epochs": 2, "batch_size": 4, "base_lr": 1e-2, "workers": 0, "weight_decay": 0.0}
    train |= options.pop("train", {})
    plain = {"image_size": 64, "batch_norm": True, "min_depth": 0.5, "bins": 32, "spacing": "log", "upsample": 1}
    return DepthTask(DepthConfig(**{"train": train, **plain, **options}))


def run(task, dataset, workdir, encoder=None):
    encoder = encoder or vit(4)
    task.check(encoder, dataset)
    return task.run(encoder, dataset, context(workdir))


def test_every_result_is_declared_and_the_best_held_out_head_is_chosen(scenes, tmp_path):
    task = depth(lr_factors=(1e-6, 1.0), held_out=0.25, train={"epochs": 6})
    result = run(task, scenes, tmp_path)
    assert list(result.metrics) == ["delta1", "rmse", "abs_rel"]
    assert {measured.n for measured in result.metrics.values()} == {4}
    scores = result.details["held_out_delta1"]
    assert set(scores) == {"1e-08", "0.01"}
    assert scores[f"{result.details['lr']:g}"] == max(scores.values())
    assert result.details["held_out_images"] == 4
    assert len(result.curves["loss"]) == 6
    assert result.artifacts["predictions"].is_file()


def test_a_head_learns(scenes, tmp_path):
    result = run(depth(train={"epochs": 12}), scenes, tmp_path)
    assert result.curves["loss"][-1] < 0.9 * result.curves["loss"][0]


def test_chance_is_the_median_of_the_training_pixels(scenes):
    train, test = scenes.split("train"), scenes.split("test")
    known = torch.cat([train.depth(index)[train.depth(index) > 0] for index in range(16)])
    constant = float(known.median())
    hits = []
    for index in range(4):
        truth = test.depth(index)
        ratios = torch.maximum(truth / constant, constant / truth)[truth > 0]
        hits.append(100 * float((ratios < 1.25).float().mean()))
    assert depth().chance(scenes) == pytest.approx(sum(hits) / 4, abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"head": "dpt", "layers": (0, 1, 1, 2), "channels": 8, "output": "regression", "image_size": 32},
        {"head": "dpt", "layers": (0, 1, 1, 2), "channels": 8, "class_token": True, "image_size": 32},
        {"output": "regression", "class_token": True, "batch_norm": False},
        {"crop_size": (32, 32), "slide": 24, "flip_test": True, "upsample": 4},
        {"augmentation": {"flip": 0.5, "rotate": 2.5, "colour": True}, "crop_size": (32, 48), "bins": 8},
        {"image_size": 32, "region": "garg"},
    ],
)
def test_every_option_runs_and_is_part_of_the_protocol(options, scenes, tmp_path):
    task = depth(**options)
    result = run(task, scenes, tmp_path)
    assert 0 <= result.metrics["delta1"].value <= 100
    assert result.metrics["rmse"].value < 4
    assert task.protocol() != depth().protocol()


def test_a_pyramid_takes_a_linear_head(scenes, tmp_path):
    assert run(depth(layers=(0, -1)), scenes, tmp_path, swin()).details["feature_dim"] == 8 + 32
    with pytest.raises(InputError, match=r"task\.head dpt makes a pyramid of maps of one size"):
        depth(head="dpt", layers=(0, 1, 1, 2)).check(swin(), scenes)


def test_bins_are_averaged_as_adabins_does():
    config = depth(bins=3, spacing="uniform").config
    output = DepthOutput(config, max_depth=4.5)
    assert output.centres.tolist() == [0.5, 2.5, 4.5]
    scores = torch.tensor([2.0, -7.0, 1.0]).reshape(1, 3, 1, 1)
    expected = (2.1 * 0.5 + 0.1 * 2.5 + 1.1 * 4.5) / 3.3
    assert float(output(scores)) == pytest.approx(expected, rel=1e-6)
    log = DepthOutput(depth(bins=3, spacing="log").config, max_depth=4.5)
    assert log.centres.tolist() == pytest.approx([0.5, 1.5, 4.5])
    plain = DepthOutput(depth(output="regression").config, max_depth=4.5)
    assert float(plain(torch.full((1, 1, 1, 1), -3.0))) == 0.5


def test_depths_are_as_exact_under_autocast():
    output = DepthOutput(depth(bins=64, spacing="log").config, max_depth=10.0)
    scores = torch.randn(2, 64, 3, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = output(scores)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, output(scores))


def test_the_map_of_dpt_has_16_times_the_size():
    config = depth(head="dpt", layers=(0, 1, 1, 2), channels=8).config
    head = build_depth_head([16] * 4, config, 10.0, seed=0)
    with torch.no_grad():
        assert head([torch.zeros(1, 16, 4, 6)] * 4).shape == (1, 1, 64, 96)
        assert head([torch.zeros(1, 16, 3, 6)] * 4).shape == (1, 1, 64, 96)


def test_held_out_images_without_readings_are_named(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(DepthTask, "_scored", lambda *_: ([[None], [None]], []))
    with pytest.raises(InputError, match=r"the held-out images of the train split of dataset 'depth-scenes': no image"):
        run(depth(lr_factors=(0.5, 1.0), held_out=0.25, train={"epochs": 1}), scenes, tmp_path)


def test_a_head_that_diverges_is_not_chosen(scenes, tmp_path):
    result = run(depth(lr_factors=(1e30, 1.0), held_out=0.25), scenes, tmp_path)
    assert (result.details["diverged"], result.details["lr"]) == (["1e+28"], 0.01)
    assert list(result.details["held_out_delta1"]) == ["0.01"]


def test_enlarging_scores_is_enlarging_features():
    """DINOv2 enlarges the features before its linear layer."""
    config = depth(upsample=4, bins=8, batch_norm=False).config
    head = build_depth_head([6], config, 4.0, seed=0)
    maps = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(0))
    larger = torch.nn.functional.interpolate(maps, (12, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head([maps]), head.output(head.layer([larger])))


def test_dpt_has_the_size_of_its_official_configuration():
    """DINOv2's of ViT-L: 1024 channels, readout "project", scales of 128 to 1024 channels."""
    config = depth(head="dpt", layers=(0, 1, 1, 2), class_token=True, output="regression").config
    with torch.device("meta"):
        head = DPTDepth([2048] * 4, config, 10.0, seed=0)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in head.named_children()}
    assert count["readouts"] == 4 * (2048 * 1024 + 1024)
    assert count["projects"] == sum(1024 * width + width for width in (128, 256, 512, 1024))
    assert count["convolutions"] == sum(9 * width * 256 for width in (128, 256, 512, 1024))
    assert count["fusions"] == 7 * 2 * 9 * 256 * 256 + 4 * (256 * 256 + 256)


def test_scores_are_of_the_original_pixels(scenes, tmp_path):
    """A model that says the truth is perfect, whatever size the encoder sees."""
    split = scenes.split("test")
    for index in range(4):
        truth = split.depth(index)
        assert truth.shape == (64, 64)
        assert score_image(truth, truth, 0.5, split.max_depth, "all").rmse == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": (5,)}, r"task\.layers: layer 5 is outside"),
        ({"region": "eigen"}, r"image 0 of the train split of dataset 'depth-scenes' has 64 x 64 px; set task\.region"),
        ({"min_depth": 9.0}, r"task\.min_depth 9 m is not below the dataset's 5 m"),
        ({"lr_factors": (1.0, 2.0), "train": {"clip_grad": 35.0}}, r"limits the gradient of all heads together"),
    ],
)
def test_what_cannot_run_is_refused(options, words, scenes):
    with pytest.raises(InputError, match=words):
        depth(**options).check(vit(4), scenes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "dpt"}, "fuses the maps of 4 layers, and layers names 1"),
        ({"max_depth": 0.1}, "must be above min_depth"),
        ({"augmentation": {"scale_jitter": (0.5, 2.0)}}, "would change what depth a size means"),
        ({"augmentation": {"photometric": True}}, "are for classes"),
    ],
)
def test_settings_that_contradict_each_other(options, words):
    with pytest.raises(ValueError, match=words):
        depth(**options)


def test_data_without_depth_is_named(cache):
    digits = open_dataset("digits", {}, cache)
    with pytest.raises(InputError, match=r"dataset 'digits' has no depth; depth needs some, e\.g\. depth-scenes"):
        depth().check(vit(4), digits)


def test_protocols_are_complete_and_every_value_has_a_source():
    assert set(DepthTask.protocols) == {"default", "dinov2-nyu-linear", "dinov2-nyu-dpt"}
    for name, protocol in DepthTask.protocols.items():
        config = DepthConfig.model_validate({"protocol": name, **protocol.options})
        paths = [key if not isinstance(value, dict) else f"{key}." for key, value in protocol.options.items()]
        paths = [path for path in paths if not path.endswith(".")]
        paths += [
            f"{key}.{inner}" for key, value in protocol.options.items() if isinstance(value, dict) for inner in value
        ]
        for path in paths:
            assert source_of(path, protocol.sources), (name, path)
        for source in protocol.sources:
            assert any(path == source or path.startswith(f"{source}.") for path in paths), (name, source)
        if name != "default":
            assert (config.train.steps, config.train.batch_size, config.region) == (38_400, 16, "eigen")
            assert all(side % 16 == 0 for side in config.crop_size)
