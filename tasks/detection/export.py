"""The detection task as an mmdet config file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.config import Config

from mimbench.api import Dataset, Encoder, InputConfig, InputError, SceneSplit, SplitName, scene_split
from mimbench_tasks.detection.config import DetectionConfig, DetectionTrain
from mimbench_tasks.detection.model import model_config
from mimbench_tasks.detection.pipeline import test_pipeline, training_pipeline
from mimbench_tasks.detection.scenes import different_labels, read_annotations, scene_filter

PARTS = ("backbone", "model", "pipeline", "mmengine_runner")
"""Modules of this package that register what the file names."""
HEADER = """\
# mimbench's detection task as an mmdet config: `python tools/train.py THIS_FILE` of mmdetection runs it, where mimbench
# is installed too (custom_imports). The encoder starts from fresh weights; to start from a checkpoint, set
# model.backbone.weights to the file results/checkpoints/FINGERPRINT/encoder.safetensors.
# Batch sizes are those of one process: divide them by the number of GPUs.
# mimbench itself trains in {precision}.
# Annotation files in mimbench's cache are mended copies; as long as you use this file, keep them.
"""
STANDARD = {"train": ("instances_train2017.json", "train2017"), "test": ("instances_val2017.json", "val2017")}


def config_file(config: DetectionConfig, encoder: Encoder, dataset: Dataset | None, images: InputConfig) -> str:
    """The text of the file; `dataset` None: it names COCO's usual places under data/coco."""
    precision = {"auto": "bf16 on CUDA devices that have it", "fp32": "fp32", "bf16": "bf16"}[config.train.precision]
    body = Config(mmdet_config(config, encoder, dataset, images)).pretty_text
    return HEADER.format(precision=precision) + "\n" + body.rstrip() + "\n"


def mmdet_config(
    config: DetectionConfig, encoder: Encoder, dataset: Dataset | None, images: InputConfig
) -> dict[str, Any]:
    """All that mmengine's Runner.from_cfg needs, built from what the task itself is built from."""
    train, channels = config.train, encoder.in_channels
    classes = _classes(dataset)
    model = model_config(config, encoder, images, classes=len(classes), live=False)
    model["backbone"]["weights"] = None
    scenes = {**_scenes(dataset, "test", classes), "test_mode": True, "pipeline": test_pipeline(config, channels)}
    test = {
        "batch_size": 1,
        "num_workers": train.workers,
        "persistent_workers": train.workers > 0,
        "drop_last": False,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": scenes,
    }
    evaluator = {
        "type": "CocoMetric",
        "ann_file": scenes["ann_file"],
        "metric": ["bbox", "segm"] if config.draws_masks else ["bbox"],
    }
    fields = train.model_dump(mode="json")
    return {
        "default_scope": "mmdet",
        "custom_imports": {
            "imports": [f"mimbench_tasks.detection.{part}" for part in PARTS],
            "allow_failed_imports": False,
        },
        "model": model,
        "train_dataloader": {
            "batch_size": train.batch_size // train.accumulate,
            "num_workers": train.workers,
            "persistent_workers": train.workers > 0,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "dataset": {
                **_scenes(dataset, "train", classes),
                "filter_cfg": scene_filter(config.keep_empty, config.least_side),
                "pipeline": training_pipeline(config, channels),
            },
        },
        "val_dataloader": test,
        "test_dataloader": test,
        "val_evaluator": evaluator,
        "test_evaluator": evaluator,
        "optim_wrapper": {
            **_precision(config),
            "constructor": "EncoderOptimizer",
            "optimizer": fields,
            "accumulative_counts": train.accumulate,
            "clip_grad": {"max_norm": train.clip_grad} if train.clip_grad else None,
        },
        "custom_hooks": [{"type": "EncoderSchedule", "train": fields}],
        **_length(train),
        "val_cfg": {"type": "ValLoop"},
        "test_cfg": {"type": "TestLoop"},
        "default_hooks": {
            "logger": {"type": "LoggerHook", "interval": 50},
            "checkpoint": {"type": "CheckpointHook", **_checkpoint_interval(train), "max_keep_ckpts": 2},
            "param_scheduler": None,
        },
        "env_cfg": {"cudnn_benchmark": False},
        "randomness": {"seed": 0},
    }


def _length(train: DetectionTrain) -> dict[str, Any]:
    """The loop, with one validation at the end. mmengine counts micro-batches as iterations."""
    if train.steps is None:
        return {"train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": train.epochs, "val_interval": train.epochs}}
    iterations = train.steps * train.accumulate
    return {
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": iterations},
        "log_processor": {"by_epoch": False},
    }


def _checkpoint_interval(train: DetectionTrain) -> dict[str, Any]:
    # mmengine's loop over iterations has no epochs, so a budget in steps saves its end if no other interval is set.
    steps = train.checkpoint_steps or train.steps
    return {"interval": steps * train.accumulate, "by_epoch": False} if steps else {"interval": train.checkpoint_every}


def _precision(config: DetectionConfig) -> dict[str, Any]:
    if config.train.precision == "bf16":
        return {"type": "AmpOptimWrapper", "dtype": "bfloat16", "loss_scale": 1.0}
    return {"type": "OptimWrapper"}


def _classes(dataset: Dataset | None) -> tuple[str, ...]:
    """Names in the order of labels, which mmdet's CocoDataset takes from the annotation file.

    Raises:
        InputError: the two files have different orders.
    """
    if dataset is None:
        return CocoDataset.METAINFO["classes"]
    training, testing = scene_split(dataset, "train"), scene_split(dataset, "test")
    names, others = ([category["name"] for category in _categories(split)] for split in (training, testing))
    if names != others:
        raise InputError(different_labels(training, testing))
    return tuple(names)


def _categories(split: SceneSplit) -> list[dict[str, Any]]:
    return read_annotations(split).dataset["categories"]


def _scenes(dataset: Dataset | None, name: SplitName, classes: tuple[str, ...]) -> dict[str, Any]:
    if dataset is None:
        annotations, images = STANDARD[name]
        paths = {"ann_file": f"data/coco/annotations/{annotations}", "data_prefix": {"img": f"data/coco/{images}/"}}
    else:
        split = scene_split(dataset, name)
        folder = Path(split.images).resolve()
        paths = {"ann_file": str(Path(split.annotations).resolve()), "data_prefix": {"img": f"{folder}/"}}
    return {"type": "CocoDataset", **paths, "metainfo": {"classes": classes}}
