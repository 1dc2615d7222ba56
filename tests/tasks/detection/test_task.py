"""The task as the harness runs it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from helpers.tiny_detection import PlainFit, TinyEncoder, TinyScenes, context, small_config, write_scenes
from mimbench import registry
from mimbench.contract import ArraySplit, InputError
from mimbench.data.files.image_reading import read_pixels
from mimbench.harness.planning.plugin_checks import check_result
from mimbench.report.scores.average_precision import ResampledPrecision
from mimbench.store.samples import Detections as StoredDetections
from mimbench_tasks.detection.config import NAMES, DetectionConfig
from mimbench_tasks.detection.detectors import DETECTORS
from mimbench_tasks.detection.task import Detection

DECLARED = {metric.name: metric for metric in Detection.metrics}


def run(scenes, workdir, *, fit=None, encoder=None, **options):
    task = Detection(small_config(**{"max_detections": 5, **options}))
    return task.run(encoder or TinyEncoder(), scenes, context(workdir, fit))


def test_the_entry_point_finds_it():
    assert registry.tasks.load("detection") is Detection


def test_importing_it_does_not_import_mmdet():
    code = "import sys, mimbench_tasks.detection.task; assert not {'mmdet', 'mmcv', 'mmengine'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_doctor_lists_which_ops_are_here(capsys):
    lines = Detection.checkup()
    assert "mmcv" in lines[0]
    assert "roi_align_forward" in lines[0] or "compiled ops" in lines[0]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("detector", NAMES)
def test_metrics_are_declared_in_range_and_complete(detector, scenes, tmp_path):
    result = run(scenes, tmp_path, detector=detector)
    assert set(result.metrics) | set(result.details["absent"]) == set(DECLARED)
    assert not set(result.metrics) & set(result.details["absent"])
    for name, measured in result.metrics.items():
        assert DECLARED[name].low <= measured.value <= DECLARED[name].high
        assert measured.n > 0
    assert next(iter(DECLARED)) == "AP"
    assert ("mask_AP" in result.metrics) == detector.endswith("mask-rcnn")
    assert "no such object" in result.details["absent"]["AP_large"]
    assert result.metrics["AP"].n == 6
    assert result.details["test_images"] == 3
    check_result(Detection(small_config(detector=detector)), result)
    covered = {name for detections in result.detections for name in detections.metrics}
    assert covered == {name for name in result.metrics if name.removeprefix("mask_") in ("AP", "AP50", "AP75")}
    for detections in result.detections:
        fields = {name: value for name, value in vars(detections).items() if name != "metrics"}
        for name, thresholds in detections.metrics.items():
            precision = ResampledPrecision(StoredDetections(**fields, thresholds=thresholds), thresholds)
            assert precision(np.ones(3)) == pytest.approx(result.metrics[name].value, abs=1e-9), name


def test_it_runs_in_a_process_where_mmengines_runner_has_been(scenes, tmp_path):
    """The runner of a pretraining leaves its own scope behind, in which mmdet's names mean other things."""
    DefaultScope.get_instance("a-pretraining", scope_name="mmengine")
    config = {"detector": "mask-rcnn", "image_size": 64, "scale_jitter": (0.8, 1.2), "flip": 0.5}
    assert "mask_AP" in run(scenes, tmp_path, **config).metrics


def test_it_learns_easy_scenes_and_counts_each_class(tmp_path):
    train, test = write_scenes(tmp_path / "a", 48), write_scenes(tmp_path / "b", 8, seed=1)
    torch.manual_seed(0)
    fit = PlainFit()
    result = run(
        TinyScenes(train, test),
        tmp_path,
        fit=fit,
        encoder=TinyEncoder(dim=32),
        channels=32,
        strides=(8, 16),
        max_detections=100,
        train={"epochs": 8, "batch_size": 4, "base_lr": 5e-3},
    )
    assert result.metrics["AP50"].value > 40
    per_class = result.details["per_class"]["boxes"]
    assert set(per_class) == {"disc", "box"}
    assert sum(row["n"] for row in per_class.values()) == result.metrics["AP"].n == 16
    mean = sum(row["AP"] for row in per_class.values()) / 2
    assert result.metrics["AP"].value == pytest.approx(mean)
    assert result.cost is not None
    assert result.curves["loss"] == result.cost.loss


def test_the_picture_shows_as_many_scenes_as_asked(scenes, tmp_path):
    path = run(scenes, tmp_path, pictures=2).artifacts["predictions"]
    assert path.parent == tmp_path
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600
        assert picture.height > 600
    assert read_pixels(path, 1).std() > 10


def test_batch_size_and_worker_count_do_not_change_what_is_found(scenes, tmp_path):
    class Untrained(PlainFit):
        def __call__(self, model, loader, config, **options):
            return super().__call__(model, loader, config.model_copy(update={"epochs": 0}), **options)

    scores = []
    for batch_size in (1, 3):
        torch.manual_seed(0)
        result = run(
            scenes,
            tmp_path,
            fit=Untrained(),
            encoder=TinyEncoder(),
            score_threshold=0.0,
            max_detections=100,
            train={"batch_size": batch_size, "workers": batch_size},
        )
        scores.append({name: measured.value for name, measured in result.metrics.items()})
    assert scores[0] == pytest.approx(scores[1])


def test_the_engine_gets_what_it_needs(scenes, tmp_path):
    seen = {}

    class Listening(PlainFit):
        def __call__(self, model, loader, config, **options):
            seen.update(options, batches=len(loader), config=config)
            return super().__call__(model, loader, config, **options)

    run(scenes, tmp_path, fit=Listening(), train={"batch_size": 4, "accumulate": 2})
    assert seen["label"] == "detection (fcos)"
    assert seen["images_per_epoch"] == 4
    assert seen["batches"] == 2, "the loader yields micro-batches"
    assert seen["config"].batch_size == 4


@pytest.mark.parametrize(("window", "expected"), [(0, None), (4, (4, (1,)))])
def test_windows_reach_a_plain_encoder(window, expected, scenes, tmp_path):
    encoder = TinyEncoder()
    run(scenes, tmp_path, encoder=encoder, window=window, global_blocks=(1,))
    assert encoder.windows == expected


def test_an_encoder_with_several_maps_keeps_its_attention(scenes, tmp_path):
    encoder = TinyEncoder(maps=2)
    run(scenes, tmp_path, encoder=encoder, window=4)
    assert encoder.windows is None


def test_the_config_survives_a_round_trip():
    config = small_config(detector="mask-rcnn", strides=(4, 8), global_blocks=(1, 3))
    assert DetectionConfig.model_validate(config.model_dump()) == config
    assert DetectionConfig.model_validate_json(config.model_dump_json()) == config
    assert Detection(config).protocol()["strides"] == [4, 8]


def test_one_part_of_the_training_budget_can_be_set():
    config = DetectionConfig(train={"epochs": 3})
    assert config.train.epochs == 3
    assert config.train.batch_size == DetectionConfig().train.batch_size


def test_pictures_and_workers_do_not_change_the_protocol():
    changed = DetectionConfig(pictures=9, train={"workers": 0})
    assert Detection(changed).protocol() == Detection(DetectionConfig()).protocol()


def test_detector_names_agree():
    assert set(NAMES) == set(DETECTORS)


def test_bad_options_are_named():
    with pytest.raises(InputError, match="unknown detector 'fcoss'; did you mean 'fcos'"):
        DetectionConfig(detector="fcoss")
    with pytest.raises(ValueError, match="rising"):
        DetectionConfig(scale_jitter=(2.0, 0.5), image_size=64)


def test_datasets_that_do_not_fit_are_named(scenes, tmp_path):
    class NoMasks(TinyScenes):
        provides = frozenset({"boxes"})

    with pytest.raises(InputError, match=r"mask-rcnn needs masks.*'tiny-scenes'.*faster-rcnn"):
        Detection(small_config(detector="mask-rcnn")).check(TinyEncoder(), NoMasks(**scenes.splits))
    labelled = ArraySplit(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1).long(), ("a",))
    with pytest.raises(InputError, match="no scenes with boxes"):
        run(TinyScenes(labelled, labelled), tmp_path)


def test_knowing_nothing_scores_nothing(scenes):
    assert Detection(DetectionConfig()).chance(scenes) == 0


def test_a_batch_of_more_scenes_than_there_are_is_refused(scenes):
    with pytest.raises(InputError, match=r"task\.train\.batch_size 99 is more than the \d+ training images"):
        Detection(small_config(train={"batch_size": 99})).check(TinyEncoder(), scenes)
