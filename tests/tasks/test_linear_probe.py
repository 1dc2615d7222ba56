"""The linear probe: leaked labels score near best, shuffled ones chance, and small or binary sets go through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mimbench.contract import ArraySplit, DataConfig, Dataset, InputConfig, InputError, TaskContext
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench_tasks.linear_probe import LinearProbe, LinearProbeConfig

ENCODER = ViT(ViTConfig(patch_size=4, embed_dim=16, depth=2, num_heads=2), image_size=8, in_channels=1)


class Labelled(Dataset):
    """`n` images of `classes` classes in each split, every class equally often."""

    name, channels = "labelled", 1

    def __init__(self, n: int, classes: int) -> None:
        super().__init__(DataConfig(), Path())
        self.labels = torch.arange(n) % classes
        self.classes = tuple(map(str, range(classes)))

    def fingerprint(self) -> str:
        return "labelled"

    def split(self, name):
        return ArraySplit(torch.zeros(len(self.labels), 1, 8, 8, dtype=torch.uint8), self.labels, self.classes)


def probe(dataset: Dataset, features, tmp_path: Path, **options):
    def source(split, which, *, layer, pooling):
        return features(split.labels, which)

    context = TaskContext(
        seed=0, device=torch.device("cpu"), workdir=tmp_path, input=InputConfig(image_size=8), fit=None,
        features=source, say=lambda text: None,
    )  # fmt: skip
    return LinearProbe(LinearProbeConfig(**options)).run(ENCODER, dataset, context)


def leaked(labels, which):
    return torch.nn.functional.one_hot(labels, 10).float()


def noise(labels, which):
    return torch.randn(len(labels), 10, generator=torch.Generator().manual_seed(int(which == "train")))


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


def test_what_it_cannot_probe_is_said_beforehand():
    with pytest.raises(InputError, match="two or more labelled classes"):
        LinearProbe(LinearProbeConfig()).check(ENCODER, Labelled(20, 1))
    with pytest.raises(InputError, match=r"task\.layer 2 is outside the encoder's 2 layers"):
        LinearProbe(LinearProbeConfig(layer=2)).check(ENCODER, Labelled(20, 2))
    LinearProbe(LinearProbeConfig(layer=-2, pooling="token")).check(ENCODER, Labelled(20, 2))
