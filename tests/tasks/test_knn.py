"""k nearest neighbours, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from helpers.hand_made import ENCODER, HandMade, Labelled, blurred, context, leaked, noise
from mimbench.contract import ArraySplit, Features, InputConfig, InputError, TaskContext
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.vit import ViT
from mimbench.harness.running.features import FrozenFeatures
from mimbench.store.store import Store
from mimbench_tasks.knn import KNN, KNNConfig, nearest

COUNTS = (20, 10, 100, 200)


def run(dataset, features, tmp_path, **options):
    return KNN(KNNConfig(**options)).run(ENCODER, dataset, context(HandMade(features), tmp_path))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_it_votes_as_scikit_learn_does(temperature, tmp_path):
    dataset = Labelled(400, 7)
    x, unseen = (blurred(dataset.split(which).labels, which, -1).numpy() for which in ("train", "test"))
    y = dataset.split("train").labels.numpy()
    metrics = run(dataset, blurred, tmp_path, temperature=temperature).metrics
    names = [f"top1_k{k}" for k in COUNTS]
    assert list(metrics) == names
    assert [metric.name for metric in KNN.metrics] == [*names, "top1_best_layer"]
    for k in COUNTS:
        oracle = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
        )
        accuracy = 100 * oracle.fit(x, y).score(unseen, dataset.split("test").labels.numpy())
        assert metrics[f"top1_k{k}"].value == pytest.approx(accuracy, abs=1e-9)
        assert metrics[f"top1_k{k}"].n == 400


def require_equal(one, other):
    """Metrics, details and predictions are equal; confidences are, up to rounding."""
    assert (one.metrics, one.details) == (other.metrics, other.details)
    first, second = one.scores.arrays(), other.scores.arrays()
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-4 if name == "confidence" else 0)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_do_not_change_the_result(chunk, tmp_path):
    require_equal(run(Labelled(250, 7), blurred, tmp_path, chunk=chunk), run(Labelled(250, 7), blurred, tmp_path))


@pytest.mark.parametrize("chunk", [3, 8, 50])
def test_neighbours_are_those_of_one_big_product(chunk):
    generator = torch.Generator().manual_seed(0)
    queries, bank = (torch.randn(n, 5, generator=generator) for n in (6, 50))
    similarity, index = nearest(queries, bank, 8, chunk)
    whole = torch.nn.functional.cosine_similarity(queries[:, None], bank[None], dim=2).topk(8)
    assert torch.equal(index, whole.indices)
    torch.testing.assert_close(similarity, whole.values)


def test_the_length_of_a_feature_does_not_count(tmp_path):
    def stretched(labels, which, layer):
        return blurred(labels, which, layer) * torch.arange(1, len(labels) + 1)[:, None]

    require_equal(run(Labelled(250, 5), stretched, tmp_path), run(Labelled(250, 5), blurred, tmp_path))


def test_leaked_labels_score_best_and_features_of_nothing_chance(tmp_path):
    dataset = Labelled(1000, 10)
    assert run(dataset, leaked, tmp_path).metrics["top1_k20"].value == 100
    assert run(dataset, noise, tmp_path).metrics["top1_k20"].value == pytest.approx(10, abs=4)
    assert KNN(KNNConfig()).chance(dataset) == 10


def test_more_neighbours_than_training_images_are_left_out_and_reported(tmp_path):
    result = run(Labelled(150, 3), leaked, tmp_path)
    assert list(result.metrics) == ["top1_k20", "top1_k10", "top1_k100"]
    assert result.details["absent"] == {
        "top1_k200": "there are only 150 training images",
        "top1_best_layer": 'one layer was compared; task.layers = "all" compares all',
    }
    with pytest.raises(InputError, match="knn needs 20 or more training images; the dataset has 12"):
        KNN(KNNConfig()).check(ENCODER, Labelled(12, 3))


class Speaking(ViT):
    """A ViT whose class token alone knows what an image shows; its patches are the same for every image."""

    def layers(self, images, last=-1, *, final_norm=True):
        token = images.flatten(1)[:, :16]
        patches = torch.ones(len(images), 16, 2, 2)
        return [Features(patches.mean((2, 3)), patches, token[:, None])] * self.num_layers


class Bright(Labelled):
    """Four classes of images; each has its own bright pixel."""

    def split(self, name):
        plain = super().split(name)
        images = torch.zeros(len(plain), 1, 64, dtype=torch.uint8)
        images[torch.arange(len(plain)), 0, plain.labels] = 255
        return ArraySplit(images.unflatten(2, (8, 8)), plain.labels, plain.classes)


def test_the_protocol_dino_votes_with_the_class_token_and_the_default_with_the_mean_of_the_patches(tmp_path):
    encoder, dataset, cpu = Speaking(ENCODER.config, image_size=8, in_channels=1), Bright(80, 4), torch.device("cpu")
    input_config = InputConfig(image_size=8, mean=(0.5,), std=(0.5,))
    features = FrozenFeatures(encoder, input_config, cpu, {}, Store(tmp_path), say=print, batch=32)
    lent = TaskContext(
        seed=0, device=cpu, workdir=tmp_path, input=input_config, fit=None, features=features, say=lambda text: None
    )

    def top1(**options):
        return KNN(KNNConfig(**options)).run(encoder, dataset, lent).metrics["top1_k20"].value

    assert top1(protocol="dino", **KNN.protocols["dino"].options) == 100
    assert top1() == 25
    assert KNN(KNNConfig()).protocol()["pooling"] == "mean"


def test_the_protocol_dino_has_dinos_values_each_with_its_source():
    protocol = KNN.protocols["dino"]
    assert protocol.options == {"layer": -1, "pooling": "token", "temperature": 0.07}
    assert set(protocol.sources) == set(protocol.options)
    assert all("facebookresearch/dino@7c446df" in source for source in protocol.sources.values())
    swin = Swin(SwinConfig(embed_dim=8, depths=(1,), num_heads=(1,), window=2), image_size=8, in_channels=1)
    with pytest.raises(InputError, match="pooling 'token' needs a class token, which this swin encoder does not have"):
        KNN(KNNConfig(**protocol.options)).check(swin, Labelled(40, 2))


def by_depth(labels, which, layer):
    """Layer 0 shows the labels, layer 1 nothing."""
    return leaked(labels, which, layer) if layer == 0 else noise(labels, which, layer)


def test_every_layer_votes_and_the_best_is_chosen_on_held_out_training_images(tmp_path):
    result, alone = (run(Labelled(200, 10), by_depth, tmp_path, layers=layers) for layers in ("all", "one"))
    assert result.metrics["top1_best_layer"].value == 100
    assert result.curves["top1_k20_by_layer"] == [100, result.metrics["top1_k20"].value]
    assert result.curves["held_out_top1_k20_by_layer"][0] == 100
    assert (result.details["layer"], result.details["best_layer"], result.details["best_layer_on_test"]) == (1, 0, 0)
    assert {**alone.metrics, "top1_best_layer": result.metrics["top1_best_layer"]} == result.metrics
    assert KNN(KNNConfig()).protocol().keys() & {"layers", "last_layers"} == set()


def test_a_layer_that_only_the_test_set_favours_is_not_the_best(tmp_path):
    def make(labels, which, layer):
        shown = leaked(labels, which, layer)
        if layer == 0:
            return blurred(labels, which, layer) if which == "train" else shown
        return shown if which == "train" else noise(labels, which, layer)

    result = run(Labelled(200, 10), make, tmp_path, layers="all")
    assert (result.details["best_layer"], result.details["best_layer_on_test"]) == (1, 0)
    assert result.metrics["top1_best_layer"].value == result.curves["top1_k20_by_layer"][1] < 50


def test_each_of_the_last_layers_counts_as_much_as_the_others(tmp_path):
    """The first layer is 1000 times as long; without unit lengths it would drown the second."""

    def make(labels, which, layer):
        return 1000 * noise(labels, which, layer) if layer == -2 else leaked(labels, which, layer)

    both, first = (run(Labelled(200, 10), make, tmp_path, **options) for options in ({"last_layers": 2}, {"layer": -2}))
    assert both.details["feature_dim"] == 20
    assert both.metrics["top1_k20"].value > 90 > first.metrics["top1_k20"].value
    with pytest.raises(InputError, match=r"task\.last_layers 3 is more than the 2 layers up to task\.layer"):
        KNN(KNNConfig(last_layers=3)).check(ENCODER, Labelled(200, 10))
    with pytest.raises(InputError, match=r"task\.last_layers 2 is more than the 1 layers up to task\.layer"):
        KNN(KNNConfig(last_layers=2, layer=0)).check(ENCODER, Labelled(200, 10))


@pytest.mark.cuda
def test_votes_on_cuda_are_those_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    queries, bank = (torch.randn(n, 16, generator=generator) for n in (50, 300))
    labels, task = torch.arange(300) % 5, KNN(KNNConfig(chunk=8))
    here, there = (task._votes(queries, bank, labels, 5, [20], torch.device(d))[20] for d in ("cpu", "cuda"))
    np.testing.assert_allclose(here, there, rtol=1e-3)
