"""Fine-tuning on clips: its protocols, its views, and what shuffled frames leave of a score."""

from __future__ import annotations

import functools

import pytest
import torch

from helpers.tiny_finetune import context as tiny_context
from mimbench.contract import ArraySplit, DataConfig, Dataset, InputConfig, InputError
from mimbench.contract.validation import validate
from mimbench.data.sources.videos import VideosConfig
from mimbench.encoders.video_vit import VideoViT, VideoViTConfig
from mimbench.recipe.document import merge
from mimbench_tasks.video.finetune import VideoFinetune
from mimbench_tasks.video.views import class_accuracies, mean_probabilities

INPUT = InputConfig(image_size=8, frames=4, crop_scale=(1.0, 1.0), flip=0.0, mean=(0.5,), std=(0.5,))
SMALL = {"train": {"epochs": 12, "batch_size": 16, "base_lr": 5e-3, "schedule": {"warmup_epochs": 1}}}


class Steps(Dataset):
    """Grey clips of 4 frames that grow brighter or darker: no single frame shows which."""

    name, channels, frames = "steps", 1, 4

    def __init__(self, n=64):
        super().__init__(DataConfig(), None)
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(n) % 2
        levels = torch.arange(4) * 60 + 10
        orders = torch.stack([levels, levels.flip(0)])[self.labels]
        noise = torch.randint(0, 10, (n, 1, 4, 8, 8), generator=generator)
        self.images = (orders.view(n, 1, 4, 1, 1) + noise).to(torch.uint8)

    def fingerprint(self):
        return "steps"

    def split(self, name):
        return ArraySplit(self.images, self.labels, ("up", "down"))


def task(*options, protocol="default"):
    table = functools.reduce(merge, options, {"protocol": protocol, **VideoFinetune.protocols[protocol].options})
    return VideoFinetune(validate(VideoFinetune.Config, table, "tasks.video-finetune"))


def encoder(**options):
    torch.manual_seed(1)
    config = VideoViTConfig(**{"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2} | options)
    return VideoViT(config, image_size=8, in_channels=1, frames=4)


def context(tmp_path):
    made = tiny_context(tmp_path)
    return type(made)(**{**vars(made), "input": INPUT})


def test_motion_is_learned_and_lost_when_frames_are_shuffled(tmp_path):
    tuned, dataset = task(SMALL), Steps()
    tuned.check(encoder(), dataset)
    result = tuned.run(encoder(), dataset, context(tmp_path))
    values = {name: measured.value for name, measured in result.metrics.items()}
    assert set(values) == {metric.name for metric in VideoFinetune.metrics}
    assert values["top1"] == 100
    assert values["top1_shuffled"] < 75
    assert values["class_mean"] == 100
    classes = result.details["classes"]
    assert set(classes) == {"up", "down"}
    assert classes["up"]["in order"] == 100
    assert sum(one["shuffled"] for one in classes.values()) / 2 == pytest.approx(values["top1_shuffled"])
    assert result.by_sample["top1_shuffled"].float().mean() * 100 == pytest.approx(values["top1_shuffled"])


def test_every_part_of_the_official_training_works_on_clips(tmp_path):
    everything = {
        "rand_augment": "rand-m7-n4-mstd0.5-inc1",
        "erase_prob": 0.5,
        "mixup": 0.8,
        "cutmix": 1.0,
        "repeats": 2,
        "head_dropout": 0.5,
        "norm": "fresh",
        "mix_group": 8,
        "train": {"epochs": 2, "batch_size": 16, "schedule": {"warmup_epochs": 0}},
    }
    result = task(everything).run(encoder(), Steps(), context(tmp_path))
    assert len(result.curves["loss"]) == 2


@pytest.mark.parametrize("name", ["videomae-k400", "videomae-ssv2", "videomae-ucf101"])
def test_official_protocols_are_options_of_the_task_and_the_dataset(name):
    config = task(protocol=name).config
    VideosConfig(**config.data)
    views = {"videomae-ssv2": (2, 3)}.get(name, (5, 3))
    assert (config.clips, config.crops) == views
    assert config.flip == (0 if name == "videomae-ssv2" else 0.5)
    assert config.repeats == 2
    # Half of the rate that the scripts give for as many videos: each is in a batch twice.
    videos = {"videomae-ucf101": 128}.get(name, 384)
    train = config.train
    assert train.base_lr * train.batch_size / train.lr_divisor == pytest.approx(5e-4 * videos / 256)


def test_whole_clips_have_one_view():
    with pytest.raises(InputError, match=r"task.clips 5: .* set task.clips=1"):
        task({"clips": 5}).check(encoder(), Steps())


class Cut(ArraySplit):
    is_in_memory, has_test_clips = False, True

    def test_clip(self, index, clip, clips):
        return self.images[index] + clip, int(self.labels[index])


def test_probabilities_are_the_mean_over_views():
    split = Cut(torch.zeros(2, 1, 4, 8, 8), torch.tensor([0, 1]), ("a", "b"))
    names = []

    def score(view, name):
        names.append(name)
        level = view[0][0].mean()
        return torch.stack([level, 1 - level]).expand(2, 2)

    probabilities = mean_probabilities(split, task({"clips": 2, "crops": 2}).config, score)
    torch.testing.assert_close(probabilities, torch.full((2, 2), 0.5, dtype=torch.float64))
    assert names == [f"test, view {number} of 2 x 2" for number in (1, 2, 3, 4)]


def test_accuracy_of_each_class():
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.3, 0.7, 0.0]])
    assert class_accuracies(probabilities, torch.tensor([0, 0, 1]), ("a", "b", "c")) == {"a": 50.0, "b": 100.0}
