"""k-NN segmentation as a task: against a naive computation, the choice of k, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers.tiny_dense import context, folder, knn, run
from helpers.tiny_segmentation import swin, vit, write_folder
from mimbench.contract import InputError
from mimbench.toolkit.class_confusion import Confusion
from mimbench.toolkit.semantic_splits import train_and_test
from mimbench_tasks.dense.images import resize_nearest
from mimbench_tasks.dense.maps import FrozenMaps


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("pixels")
    return folder(write_folder(root / "a", count=6), root / "cache")


def naive(task, dataset, encoder, workdir, k):
    """mIoU of soft votes, patch by patch."""
    train, test = train_and_test(dataset)
    maps = FrozenMaps(encoder, task.config, context(workdir).input, torch.device("cpu"))

    def seen(split, index):
        sample = task.evaluation_images(split, encoder).sample(index)
        features = F.normalize(maps(sample.image[None])[0][0].flatten(1).T, dim=1)
        labels = resize_nearest(sample.target, (32, 32))
        shares = torch.zeros(64, 3)
        for patch in range(64):
            row, column = divmod(patch, 8)
            cell = labels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            for label in range(3):
                shares[patch, label] = float((cell == label).sum()) / max(1, int((cell != 255).sum()))
        return features, shares, labels

    bank = [seen(train, index)[:2] for index in range(len(train))]
    vectors, shares = torch.cat([one[0] for one in bank]), torch.cat([one[1] for one in bank])
    known = shares.sum(1) > 0
    vectors, shares = vectors[known], shares[known]
    confusion = Confusion(3)
    for index in range(len(test)):
        features, _, labels = seen(test, index)
        answers = torch.zeros(3, 8, 8)
        for patch, feature in enumerate(features):
            near = vectors @ feature
            best = near.sort(descending=True, stable=True).indices[:k]
            answers[:, patch // 8, patch % 8] = (near[best] / task.config.temperature).softmax(0) @ shares[best]
        whole = F.interpolate(answers[None], (32, 32), mode="bilinear", align_corners=False)[0]
        confusion.add(labels, whole.argmax(0))
    return confusion.scores().mean_iou


def test_it_is_what_a_naive_computation_finds(dataset, tmp_path):
    task = knn(neighbours=(5,), chunk=37, queries=11, batch=2)
    result = run(task, dataset, tmp_path)
    expected = naive(task, dataset, vit(4), tmp_path, 5)
    assert result.metrics["mIoU"].value == pytest.approx(expected, abs=0.2)
    assert 40 < expected < 100, "brightness gives the class away"
    assert result.metrics["mIoU"].n == 3
    assert result.artifacts["predictions"].is_file()


@pytest.mark.parametrize("options", [{"batch": 1}, {"chunk": 10}, {"queries": 7}, {"workers": 1}])
def test_how_it_is_computed_does_not_matter(options, dataset, tmp_path):
    plain, other = (run(knn(**each), dataset, tmp_path / str(len(each))) for each in ({}, options))
    assert other.metrics["mIoU"].value == pytest.approx(plain.metrics["mIoU"].value, abs=0.1)
    assert knn(**options).protocol() == knn().protocol()


def test_a_limited_memory_has_equally_many_patches_of_each_image(dataset, tmp_path):
    result = run(knn(memory=61), dataset, tmp_path)
    assert result.details["memory"] == 60
    again = run(knn(memory=61), dataset, tmp_path / "again")
    assert again.metrics == result.metrics


def test_the_setting_is_chosen_on_held_out_training_images(dataset, tmp_path):
    settings = {"neighbours": (1, 100), "distances": ("cosine", "L2"), "vote": "pixels", "standardise": True}
    result = run(knn(**settings), dataset, tmp_path)
    scores = result.details["held_out_mIoU"]
    assert set(scores) == {"1 cosine", "1 L2", "100 cosine", "100 L2"}
    chosen = f"{result.details['neighbours']} {result.details['distance']}"
    assert scores[chosen] == max(scores.values())
    assert result.details["held_out_images"] == 1
    assert result.metrics["mIoU"].value > 50


def test_fp16_hardly_matters(dataset, tmp_path):
    one, other = (run(knn(memory_precision=each), dataset, tmp_path / each) for each in ("fp32", "fp16"))
    assert other.metrics["mIoU"].value == pytest.approx(one.metrics["mIoU"].value, abs=2)
    assert knn(memory_precision="fp16").protocol() != knn().protocol()


def test_a_pyramid_gives_one_vector_per_cell_of_its_last_map(dataset, tmp_path):
    result = run(knn(layers=(0, -1), image_size=64), dataset, tmp_path, swin())
    assert result.details["feature_dim"] == 8 + 32
    assert result.details["resolution"]["px per feature"] == 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 34}, r"task\.image_size 34 px is not a multiple of the 4 px of a feature"),
        ({"image_size": None}, r"set task\.image_size alone"),
        ({"keep_aspect": True}, r"set task\.image_size alone"),
        ({"memory": 5}, r"task\.memory 5 is below one patch for each of the 6 training images"),
        ({"class_token": True, "layers": (9,)}, r"task\.layers: layer 9 is outside"),
    ],
)
def test_what_cannot_run_is_refused(options, words, dataset):
    with pytest.raises(InputError, match=words):
        knn(**options).check(vit(4), dataset)
