"""The task as an mmdet config file: the same model, data and rates, run by mmengine's own Runner."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.runner import Runner
from safetensors.torch import save_file
from typer.testing import CliRunner

from helpers.tiny_detection import TinyScenes, small_config, write_scenes
from mimbench.cli.application import app
from mimbench.contract import InputConfig, InputError, NotSupported, Task
from mimbench.data.sources.coco import Coco, CocoConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.harness.export_task import export_task
from mimbench.optim import Schedule
from mimbench_tasks.detection.backbone import EncoderBackbone, describe
from mimbench_tasks.detection.mmengine_runner import EncoderSchedule
from mimbench_tasks.detection.model import build_detector
from mimbench_tasks.detection.task import Detection

IMAGES = InputConfig(image_size=32, mean=(0.4,), std=(0.3,))


def vit() -> ViT:
    config = ViTConfig(patch_size=4, embed_dim=16, depth=2, num_heads=2, position="sincos")
    return ViT(config, image_size=32, in_channels=1)


def options(budget=None, **changed):
    train = {"epochs": 2, "batch_size": 2, "layer_decay": 0.5, "workers": 0, "precision": "fp32"}
    train["schedule"] = {"kind": "multistep", "milestones": [1.5], "warmup_epochs": 0.5}
    train |= budget or {}
    chosen = {"detector": "mask-rcnn", "image_size": 64, "scale_jitter": (0.5, 1.5), "recompute_boxes": True}
    return small_config(**chosen, square=True, flip=0.5, drop_path=0.1, window=3, train=train, **changed)


@pytest.fixture
def tiny(tmp_path) -> TinyScenes:
    return TinyScenes(write_scenes(tmp_path / "train", 4), write_scenes(tmp_path / "test", 2, seed=1))


@pytest.fixture
def file(tiny, tmp_path):
    path = tmp_path / "detection.py"
    path.write_text(Detection(options()).export(vit(), tiny, IMAGES))
    return path


def test_the_model_is_the_one_that_the_task_trains(file):
    config = Config.fromfile(file)
    ours = build_detector(options(), vit(), IMAGES, classes=2, seed=0)
    theirs = MODELS.build(config.model)
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 1, 64, 64)
    for one, other in zip(ours.eval().extract_feat(images), theirs.eval().extract_feat(images), strict=True):
        torch.testing.assert_close(one, other)


def test_mmengines_runner_trains_and_evaluates_it(file, tmp_path):
    config = Config.fromfile(file)
    rates = []

    class Listening(Runner):
        def call_hook(self, name, **arguments):
            super().call_hook(name, **arguments)
            if name == "before_train_iter":
                groups = self.optim_wrapper.optimizer.param_groups
                rates.append([(group["lr"], group["lr_scale"]) for group in groups])

    config.work_dir, config.log_level, config.default_hooks.checkpoint = str(tmp_path / "work"), "ERROR", None
    config.experiment_name = tmp_path.name
    runner = Listening.from_cfg(config)
    runner.train()
    scalars = {key for key in runner.message_hub.log_scalars if key.startswith("val/")}
    assert {"val/coco/bbox_mAP", "val/coco/segm_mAP"} <= scalars
    assert len(rates) == 4
    schedule = Schedule(options().train, steps_per_epoch=2)
    for step, groups in enumerate(rates):
        assert [rate for rate, _ in groups] == pytest.approx([schedule.lr(step, scale) for _, scale in groups])
    assert {scale for _, scale in rates[0]} == {0.5**3, 0.5**2, 0.5, 1.0}


def test_a_budget_in_steps_is_a_loop_over_iterations(tiny, tmp_path):
    path = tmp_path / "detection.py"
    budget = {"epochs": None, "steps": 3, "schedule": {"warmup_steps": 1}}
    path.write_text(Detection(options(budget)).export(vit(), tiny, IMAGES))
    config, rates = Config.fromfile(path), []
    iterations = 3 * options().train.accumulate
    assert (config.train_cfg.type, config.train_cfg.max_iters) == ("IterBasedTrainLoop", iterations)
    assert (config.default_hooks.checkpoint.interval, config.default_hooks.checkpoint.by_epoch) == (iterations, False)

    class Listening(Runner):
        def call_hook(self, name, **arguments):
            super().call_hook(name, **arguments)
            if name == "before_train_iter":
                rates.append(self.optim_wrapper.optimizer.param_groups[0]["lr"])

    config.work_dir, config.log_level, config.default_hooks.checkpoint = str(tmp_path / "work"), "ERROR", None
    config.experiment_name = tmp_path.name
    Listening.from_cfg(config).train()
    assert len(rates) == iterations
    assert rates[0] == 0 < rates[-1]


def scheduled(batches: int, **train):
    """The weight decays and rates of the parameters with weight decay, per micro-batch of one epoch."""
    fields = options(train).train.model_dump(mode="json")
    hook, groups = EncoderSchedule(fields), [{"weight_decay": 0.1, "lr": 0.0, "lr_scale": 1.0}]
    runner = SimpleNamespace(
        train_dataloader=range(batches),
        optim_wrapper=SimpleNamespace(optimizer=SimpleNamespace(param_groups=groups)),
        iter=0,
    )
    hook.before_train(runner)
    decays = []
    for runner.iter in range(batches):
        hook.before_train_iter(runner, runner.iter)
        decays.append(groups[0]["weight_decay"])
    return decays


def test_the_weight_decay_follows_the_schedule_of_run():
    changes = {"epochs": 1, "batch_size": 2, "accumulate": 2, "weight_decay": 0.1, "final_weight_decay": 0.3}
    decays = scheduled(4, **changes, schedule={"warmup_epochs": 0})
    schedule = Schedule(options({**changes, "schedule": {"warmup_epochs": 0}}).train, steps_per_epoch=2)
    assert decays == pytest.approx([schedule.weight_decay(step) for step in (0, 0, 1, 1)])
    assert decays[-1] > decays[0]


def test_micro_batches_that_would_be_accumulated_over_two_epochs_are_refused():
    with pytest.raises(InputError, match="an epoch has 5 micro-batches, which is not a multiple of accumulate = 2"):
        scheduled(5, epochs=1, batch_size=2, accumulate=2, schedule={"warmup_epochs": 0})


def test_a_checkpoints_weights_can_be_named(tmp_path):
    pretrained = vit()
    save_file(pretrained.state_dict(), tmp_path / "encoder.safetensors")
    backbone = EncoderBackbone(describe(pretrained), weights=str(tmp_path / "encoder.safetensors"), drop_path=0.1)
    for key, value in backbone.encoder.state_dict().items():
        assert torch.equal(value, pretrained.state_dict()[key])
    (tmp_path / "encoder.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="does not hold this encoder's weights"):
        EncoderBackbone(describe(pretrained), weights=str(tmp_path / "encoder.safetensors"))


def test_the_command_resolves_recipe_protocol_and_settings(capsys, tmp_path):
    settings = {"task.protocol": "vitdet", "task.train.epochs": 98}
    path = tmp_path / "vitdet.py"
    path.write_text(export_task("detection", "imagenet-vit-base", "mae", settings))
    assert "dataset 'coco' cannot be opened" in capsys.readouterr().err
    config = Config.fromfile(path)
    assert config.model.backbone.encoder.config.position == "sincos"
    assert config.model.backbone.window == 14
    assert config.train_cfg.max_epochs == 98
    assert config.train_dataloader.dataset.ann_file == "data/coco/annotations/instances_train2017.json"
    assert len(config.train_dataloader.dataset.metainfo.classes) == 80
    assert [step["type"] for step in config.train_dataloader.dataset.pipeline] == [
        "LoadScene",
        "LoadAnnotations",
        "RandomResize",
        "RandomCrop",
        "FilterAnnotations",
        "RandomFlip",
        "PackDetInputs",
    ]


def shuffle_categories(split, *, renumber=False):
    document = json.loads(split.annotations.read_text())
    document["categories"].reverse()
    if renumber:
        for entry in document["categories"]:
            entry["id"] = 30 - entry["id"]
        for record in document["annotations"]:
            record["category_id"] = 30 - record["category_id"]
    split.annotations.write_text(json.dumps(document))


@pytest.mark.parametrize("renumber", [False, True])
@pytest.mark.parametrize("name", ["train", "test"])
def test_mmdet_gives_one_label_to_a_name_in_both_splits(tiny, tmp_path, name, renumber):
    shuffle_categories(tiny.split(name), renumber=renumber)
    paths = {}
    for part in ("train", "test"):
        paths |= {f"{part}_annotations": tiny.split(part).annotations, f"{part}_images": tiny.split(part).images}
    dataset = Coco(CocoConfig(channels=1, **paths), tmp_path / "cache")
    (tmp_path / "c.py").write_text(Detection(options()).export(vit(), dataset, IMAGES))
    config = Config.fromfile(tmp_path / "c.py")
    # Labels follow train's ids.
    expected = ("box", "disc") if name == "train" and renumber else ("disc", "box")
    for part in ("train_dataloader", "val_dataloader"):
        scenes = DATASETS.build({**config[part].dataset, "pipeline": []})
        document = json.loads(Path(scenes.ann_file).read_text())
        names = {category["id"]: category["name"] for category in document["categories"]}
        labels = {label: names[category] for category, label in scenes.cat2label.items()}
        assert labels == dict(enumerate(scenes.metainfo["classes"])) == dict(enumerate(expected))
        by_image = {entry["img_id"]: entry["instances"] for entry in map(scenes.get_data_info, range(len(scenes)))}
        for record in document["annotations"]:
            boxes = {
                tuple(prediction["bbox"][:2]): prediction["bbox_label"] for prediction in by_image[record["image_id"]]
            }
            assert labels[boxes[tuple(record["bbox"][:2])]] == names[record["category_id"]]


def test_files_of_a_plugin_that_list_categories_differently_are_refused(tiny):
    shuffle_categories(tiny.split("test"))
    with pytest.raises(InputError, match="list their categories differently, and labels follow that order"):
        Detection(options()).export(vit(), tiny, IMAGES)


def test_the_command_writes_a_file_or_prints(tmp_path):
    command = ["show", "task", "detection", "--config", "--recipe", "imagenet-swin-base", "--method", "simmim"]
    printed = CliRunner().invoke(app, command)
    written = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "swin.py")])
    assert (printed.exit_code, written.exit_code, written.stdout) == (0, 0, "")
    assert (tmp_path / "swin.py").read_text() == printed.stdout
    assert Config.fromfile(tmp_path / "swin.py").model.neck.num_outs == 5


def test_a_wrong_root_is_an_error_and_not_a_usual_place(tmp_path):
    settings = {"task.protocol": "vitdet", "task.data.root": str(tmp_path / "nowhere")}
    with pytest.raises(InputError, match="nowhere does not exist"):
        export_task("detection", "imagenet-vit-base", "mae", settings)


def test_other_tasks_have_no_such_file(tiny):
    class Plain(Task):
        name = "plain"
        run = chance = None

    with pytest.raises(NotSupported, match="task 'plain' cannot be written"):
        Plain.export(Plain.__new__(Plain), vit(), tiny, IMAGES)
