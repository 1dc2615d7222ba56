"""Tasks in two processes give what they give in one: frozen ones to the last bit, trained ones up to rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from helpers import tiny_dense
from helpers.tiny_detection import TinyEncoder, TinyScenes, small_config, write_scenes
from helpers.tiny_finetune import CPU, EVERYTHING, INPUT, SMALL, Greys, encoder
from helpers.tiny_finetune import context as training_context
from helpers.tiny_finetune import task as finetune_task
from helpers.tiny_segmentation import GREY, write_folder
from helpers.tiny_segmentation import settings as segmentation_settings
from helpers.tiny_segmentation import vit as segmentation_vit
from helpers.two_processes import join, run_in_two
from mimbench import registry
from mimbench.contract import FitReport, TaskContext, TaskResult
from mimbench.data import open_dataset
from mimbench.distributed import get_rank
from mimbench.harness.running.features import FrozenFeatures
from mimbench.store.store import Store
from mimbench_tasks.attentive_probe.config import AttentiveProbeConfig
from mimbench_tasks.attentive_probe.task import AttentiveProbe
from mimbench_tasks.detection.task import Detection
from mimbench_tasks.few_shot import FewShot, FewShotConfig
from mimbench_tasks.knn import KNN, KNNConfig
from mimbench_tasks.linear_probe import LinearProbe, LinearProbeConfig
from mimbench_tasks.reconstruction.config import ReconstructionConfig
from mimbench_tasks.reconstruction.task import Reconstruction
from mimbench_tasks.robustness.task import Robustness, RobustnessConfig
from mimbench_tasks.segmentation.task import Segmentation

SOLVERS = ("sklearn", "torch")
FINETUNES = {
    "augmented": {**EVERYTHING, "drop_path": 0.3},
    "groups on one rank": {**SMALL, "mixup": 0.8, "cutmix": 1.0, "mix_group": 2, "erase_prob": 0.5},
    "accumulated": {"train": {**SMALL["train"], "accumulate": 2}, "mixup": 0.8},
}


def frozen_tasks(folder: Path) -> dict[str, TaskResult]:
    """Results of the tasks on frozen features, whose images are noisy enough that some answers are wrong."""
    data, vit = Greys(n=50, side=16), encoder()
    data.images = (data.images // 4 + torch.randint(0, 190, data.images.shape, generator=torch.Generator())).byte()
    source = FrozenFeatures(vit, INPUT, CPU, {}, Store(folder), say=print, batch=8)
    context = context_of(folder / "frozen", features=source)
    tasks = {"knn": KNN(KNNConfig(chunk=8)), "knn of layers": KNN(KNNConfig(chunk=8, layers="all", last_layers=2))}
    for solver in SOLVERS:
        tasks[f"probe {solver}"] = LinearProbe(LinearProbeConfig(layers="all", solver=solver))
    tasks["few-shot"] = FewShot(FewShotConfig(draws=1))
    tasks["robustness"] = Robustness(RobustnessConfig(test_limit=3, severities=(5,), solver="torch"))
    return {name: task.run(vit, data, context) for name, task in tasks.items()}


def context_of(folder: Path, **changes: object) -> TaskContext:
    """As the harness makes it: the state of a training is shared, other files are written by rank."""
    workdir = folder / f"rank{get_rank()}"
    workdir.mkdir(parents=True)
    return replace(training_context(folder), workdir=workdir, **changes)


def trained_tasks(folder: Path) -> dict[str, TaskResult]:
    """Results of tasks that train."""
    data, results = Greys(n=32), {}
    for name, options in FINETUNES.items():
        finetune = finetune_task(options)
        finetune.check(encoder(), data)
        assert finetune.depends_on_processes(encoder(), data) == ""
        results[name] = finetune.run(encoder(), data, context_of(folder / name))
    results["finetune of a resnet"] = finetune_task(SMALL).run(encoder("resnet"), data, context_of(folder / "resnet"))
    train = {"epochs": 2, "batch_size": 8, "base_lr": 0.1, "schedule": {"warmup_epochs": 0}}
    probe = LinearProbe(LinearProbeConfig(probe="trained", train=train))
    source = FrozenFeatures(encoder(), INPUT, CPU, {}, Store(folder), say=print, batch=8)
    results["trained probe"] = probe.run(encoder(), data, context_of(folder / "probe", features=source))
    sweep = LinearProbe(LinearProbeConfig(probe="sweep", blocks=(1, 2), rates=(0.01, 0.1), train=train))
    results["linear sweep"] = sweep.run(encoder(), data, context_of(folder / "sweep"))
    heads = ("ep", "cae", "vjepa", "mean")
    attentive = AttentiveProbe(AttentiveProbeConfig(heads=heads, queries=4, rates=(1e-2, 0.1), train=train))
    results["attentive probe"] = attentive.run(encoder(), data, context_of(folder / "attentive"))
    results |= segmentations(folder) | dense(folder)
    return results | {"detection": detection(folder), "reconstruction": reconstruction(folder)}


def segmentations(folder: Path) -> dict[str, TaskResult]:
    root = str(write_folder(folder / f"data{get_rank()}", count=8))
    dataset = open_dataset("ade20k", {"root": root, "channels": 1}, folder / f"cache{get_rank()}")
    results = {}
    for name, options in {
        "upernet": {"head": "upernet", "background_weight": 0.5},
        "pyramid": {"auxiliary": 0.4},
    }.items():
        train = {"epochs": 2, "batch_size": 4, "schedule": {"warmup_epochs": 0}}
        config = segmentation_settings(train=train, dropout=0.3, drop_path=0.2, crop_size=32, flip=0.5, **options)
        task = Segmentation(config)
        assert task.depends_on_processes(segmentation_vit(), dataset) == ""
        results[name] = task.run(segmentation_vit(), dataset, context_of(folder / name, input=GREY))
    return results


def dense(folder: Path) -> dict[str, TaskResult]:
    """Frozen segmentations: heads on maps that are kept, on augmented images, and a memory that processes share."""
    root = str(write_folder(folder / f"dense{get_rank()}", count=8))
    dataset = open_dataset("ade20k", {"root": root, "channels": 1}, folder / f"dense cache{get_rank()}")
    augmented = {"augmentation": {"flip": 0.5, "scale_jitter": (0.8, 1.5)}, "crop_size": (24, 24)}
    tasks = {
        "dense-linear, kept": tiny_dense.linear(lr_factors=(0.1, 1.0), held_out=0.5),
        "dense-linear, augmented": tiny_dense.linear(**augmented),
        "dense-knn": tiny_dense.knn(memory=300, standardise=True),
    }
    assert {task.depends_on_processes(segmentation_vit(4), dataset) for task in tasks.values()} == {""}
    return {
        name: task.run(segmentation_vit(4), dataset, context_of(folder / name, input=GREY))
        for name, task in tasks.items()
    }


def detection(folder: Path) -> TaskResult:
    """Of a detector that is not trained, since its training depends on the number of processes."""
    data = folder / f"scenes{get_rank()}"
    scenes = TinyScenes(write_scenes(data / "train", 4), write_scenes(data / "test", 5, seed=1))
    task = Detection(small_config())
    assert "by process" in task.depends_on_processes(TinyEncoder(), scenes)
    return task.run(TinyEncoder(), scenes, context_of(folder / "detection", fit=no_training))


def no_training(model, loader, config, **arguments) -> FitReport:
    return FitReport([], 0.0, 0, 0, None, "fp32")


def reconstruction(folder: Path) -> TaskResult:
    data = Greys(n=32)
    data.cache = folder / "cache"
    method = registry.methods.load("mae")
    judge = {"epochs": 2, "batch_size": 8, "features": 4}
    config = ReconstructionConfig(ratios=(0.5,), images=32, generated=16, judge=judge)
    built = method(method.Config(), encoder())
    context = context_of(folder / "reconstruction", method=built.eval())
    return Reconstruction(config).run(encoder(), data, context)


def differences(one: TaskResult, other: TaskResult) -> list[str]:
    """Parts in which two results differ by any bit."""
    names = [
        part for part in ("metrics", "curves", "details") if dict(getattr(one, part)) != dict(getattr(other, part))
    ]
    if one.scores is not None and other.scores is not None:
        arrays = other.scores.arrays()
        names += [name for name, values in one.scores.arrays().items() if not np.array_equal(values, arrays[name])]
    return names


def trained_differences(one: TaskResult, other: TaskResult) -> list[str]:
    """Losses and scores that differ by more than rounding."""
    losses, others = (np.array(result.cost.loss) if result.cost else None for result in (one, other))
    is_equal = losses is None or np.allclose(losses, others, rtol=1e-5, atol=0)
    wrong = [] if is_equal else [f"losses {losses} and {others}"]
    for name, measured in one.metrics.items():  # the Frechet distance takes the root of a matrix
        if not np.isclose(measured.value, other.metrics[name].value, rtol=1e-3 if name == "frechet" else 1e-5):
            wrong.append(f"{name} {measured.value} and {other.metrics[name].value}")
    return wrong


def compare(rank, port, folder, failures):
    join(rank, port)
    frozen, trained = frozen_tasks(folder / "two"), trained_tasks(folder / "two")
    torch.distributed.destroy_process_group()
    if rank:
        return
    for name, result in frozen_tasks(folder / "one").items():
        if differing := differences(frozen[name], result):
            failures.put(f"{name}: {differing}")
    for name, result in trained_tasks(folder / "one").items():
        is_exact = name == "detection"
        differing = (differences if is_exact else trained_differences)(trained[name], result)
        if differing:
            failures.put(f"{name}: {differing}")


def test_what_depends_on_the_number_of_processes_says_so(tmp_path):
    dropout = finetune_task({"attention_dropout": 0.1})
    assert "dropout" in dropout.depends_on_processes(encoder(), Greys())
    assert finetune_task().depends_on_processes(encoder(attention_dropout=0.1), Greys()) == ""
    dataset = open_dataset("ade20k", {"root": str(write_folder(tmp_path / "a")), "channels": 1}, tmp_path / "cache")
    for options, is_reason in (({}, False), ({"image_size": 32, "scale_jitter": (0.5, 2.0)}, True)):
        task = Segmentation(segmentation_settings(**options))
        assert ("largest" in task.depends_on_processes(segmentation_vit(), dataset)) == is_reason
    write_folder(tmp_path / "b")
    write_folder(tmp_path / "b", count=1, size=(48, 48))
    mixed = open_dataset("ade20k", {"root": str(tmp_path / "b"), "channels": 1}, tmp_path / "cache")
    assert "largest" in Segmentation(segmentation_settings()).depends_on_processes(segmentation_vit(), mixed)


def test_tasks_are_the_same_in_two_processes(tmp_path):
    run_in_two(compare, tmp_path, seconds=480)
