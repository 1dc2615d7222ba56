"""Few labels: which images are drawn, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.hand_made import ENCODER, HandMade, Labelled, blurred, context, leaked, noise
from mimbench.contract import InputError
from mimbench_tasks.few_shot import SHOTS, FewShot, FewShotConfig, choose_labelled, rank_in_class

LABELS = np.repeat(np.arange(4), [300, 60, 7, 2])[np.random.RandomState(0).permutation(369)]


def run(dataset, features, tmp_path, seed=0, **options):
    return FewShot(FewShotConfig(**options)).run(ENCODER, dataset, context(HandMade(features), tmp_path, seed))


@pytest.mark.parametrize(
    ("shots", "counts"),
    [
        (1, [1, 1, 1, 1]),
        (2, [2, 2, 2, 2]),
        (5, [5, 5, 5, 2]),
        (10, [10, 10, 7, 2]),
        (0.01, [3, 1, 1, 1]),
        (0.1, [30, 6, 1, 1]),
    ],
)
def test_each_class_gives_as_many_labels_as_it_should_and_has(shots, counts):
    chosen = choose_labelled(rank_in_class(LABELS, seed=0, draw=0), LABELS, shots)
    assert np.bincount(LABELS[chosen]).tolist() == counts
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_fewer_shots_are_among_more():
    ranks = rank_in_class(LABELS, seed=0, draw=0)
    one, five, ten = (set(choose_labelled(ranks, LABELS, shots).tolist()) for shots in (1, 5, 10))
    assert one < five < ten


def test_a_draw_depends_on_seed_and_number_only():
    assert rank_in_class(LABELS, 3, 1).tolist() == rank_in_class(LABELS, 3, 1).tolist()
    others = [rank_in_class(LABELS, seed, draw).tolist() for seed in range(3) for draw in range(3)]
    assert len({tuple(ranks) for ranks in others}) == 9
    labels = np.array([0, 1] * 3)
    assert rank_in_class(labels, 0, 0).tolist() == [0, 2, 1, 1, 2, 0]  # the same on every machine, with every numpy


def test_every_image_is_drawn_equally_often():
    labels = np.zeros(10, dtype=int)
    times = sum(
        np.bincount(choose_labelled(rank_in_class(labels, 0, draw), labels, 5), minlength=10) for draw in range(400)
    )
    assert abs(times - 200).max() < 45


def test_every_method_sees_the_same_draws(tmp_path):
    seen: list[list[int]] = []

    class Recorded(np.ndarray):
        def __getitem__(self, key):
            if isinstance(key, np.ndarray):
                seen[-1] += key.tolist()
            return super().__getitem__(key)

    class Source(HandMade):
        def __call__(self, split, which, *, layer, pooling):
            features = super().__call__(split, which, layer=layer, pooling=pooling)
            return type("Told", (), {"numpy": lambda self: features.numpy().view(Recorded)})()

    for make in (leaked, noise):
        seen.append([])
        FewShot(FewShotConfig(draws=2)).run(ENCODER, Labelled(100, 5), context(Source(make), tmp_path))
    assert seen[0] == seen[1]
    assert len(seen[0]) > 100


def test_leaked_labels_score_best_and_features_of_nothing_chance(tmp_path):
    dataset = Labelled(1000, 10)
    metrics = run(dataset, leaked, tmp_path, draws=2).metrics
    assert list(metrics) == [metric.name for metric in FewShot.metrics]
    assert {measured.value for measured in metrics.values()} == {100}
    assert run(dataset, noise, tmp_path, draws=2).metrics["top1_5shot"].value == pytest.approx(10, abs=4)
    assert FewShot(FewShotConfig()).chance(dataset) == 10


def test_more_labels_help_and_the_deviation_is_that_over_draws(tmp_path):
    result = run(Labelled(1000, 10), blurred, tmp_path)
    values = {name: result.metrics[f"top1_{name}"].value for name in SHOTS}
    assert values["1shot"] < values["2shot"] < values["5shot"] < values["10percent"]
    for name in SHOTS:
        draws = result.curves[f"top1_{name}_by_draw"]
        assert len(draws) == 5
        assert values[name] == pytest.approx(np.mean(draws))
        assert result.details["deviation_over_draws"][name] == pytest.approx(np.std(draws, ddof=1))
        low, high = result.details["interval_over_draws"][name]
        assert (low + high) / 2 == pytest.approx(values[name])
        assert high - low == pytest.approx(2 * 2.776445 * np.std(draws, ddof=1) / 5**0.5, rel=1e-5)
    assert result.details["labels"] == {
        "5shot": 50, "1shot": 10, "2shot": 20, "10shot": 100, "1percent": 10, "10percent": 100,
    }  # fmt: skip
    assert run(Labelled(100, 10), blurred, tmp_path, draws=1).details["deviation_over_draws"]["1shot"] is None
    assert run(Labelled(100, 10), blurred, tmp_path, draws=1).details["interval_over_draws"]["1shot"] is None


def test_classes_with_fewer_images_than_shots_are_named(tmp_path):
    train = [0] * 20 + [1] * 7 + [2] * 3
    dataset = Labelled(train=train, test=[0, 1, 2, 3])
    result = run(dataset, leaked, tmp_path)
    assert result.details["classes_short_of"] == {"5": {"2": 3}, "10": {"1": 7, "2": 3}}
    assert result.metrics["top1_5shot"].value == 75  # nothing is known of class 3
    assert FewShot(FewShotConfig()).chance(dataset) == pytest.approx(100 * 3 / 4 / 3)


def test_seeds_draw_otherwise(tmp_path):
    dataset = Labelled(300, 10)
    one, again, other = (run(dataset, blurred, tmp_path, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one.curves != other.curves
    assert torch.equal(dataset.split("train").labels, torch.arange(300) % 10)


# --- lists of images -------------------------------------------------------------------------------------------------


class Named(Labelled):
    """Its images are called 0.png, 1.png, ..."""

    def split(self, name):
        split = super().split(name)
        split.file_name = lambda index: f"{index}.png"
        return split


def write_list(path, names):
    path.write_text("\n".join(names) + "\n")
    return path


def test_a_list_takes_the_place_of_the_draws(tmp_path):
    dataset = Named(200, 10)
    first = write_list(tmp_path / "a.txt", [f"n01/{index}.png" for index in range(9, -1, -1)])
    second = write_list(tmp_path / "b.txt", [f"{index}.png" for index in range(20, 30)])
    drawn = run(dataset, blurred, tmp_path, draws=2)
    one = run(dataset, blurred, tmp_path, draws=2, lists={"1percent": first})
    both = run(dataset, blurred, tmp_path, draws=2, lists={"1percent": [first, second]})
    assert {name: one.metrics[name] == drawn.metrics[name] for name in drawn.metrics if name != "top1_1percent"} == {
        f"top1_{name}": True for name in SHOTS if name != "1percent"
    }
    assert one.details["labels"]["1percent"] == 10
    assert len(one.curves["top1_1percent_by_draw"]) == 1
    assert both.curves["top1_1percent_by_draw"][:1] == one.curves["top1_1percent_by_draw"]
    assert both.metrics["top1_1percent"].value == pytest.approx(np.mean(both.curves["top1_1percent_by_draw"]))
    assert one.curves["top1_1percent_by_draw"] != drawn.curves["top1_1percent_by_draw"]


def test_the_content_of_a_list_is_part_of_the_protocol(tmp_path):
    file = write_list(tmp_path / "a.txt", ["0.png"])
    listed = FewShot(FewShotConfig(lists={"1percent": file}))
    before = listed.protocol()
    assert "lists" not in FewShot(FewShotConfig()).protocol()
    write_list(file, ["1.png", "2.png"])
    assert before["lists"]["1percent"][0].startswith("sha256:")
    assert listed.protocol() != before


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0.png", "x.png", "y.png"], r"2 of its 3 names are not among the training images, such as x\.png"),
        (["0.png", "1.png", "a/0.png"], r"names 0\.png twice"),
        (["0.png", "10.png"], "its images are of one class"),
        ([""], "names no image"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_while_planning(names, words, tmp_path):
    file = tmp_path / "list.txt"
    if names is not None:
        write_list(file, names)
    with pytest.raises(InputError, match=words):
        FewShot(FewShotConfig(lists={"10percent": file})).check(ENCODER, Named(100, 10))


def test_images_without_names_and_unknown_shots_are_refused(tmp_path):
    file = write_list(tmp_path / "list.txt", ["0.png", "1.png"])
    with pytest.raises(InputError, match="the images of this dataset have no file names"):
        FewShot(FewShotConfig(lists={"1percent": file})).check(ENCODER, Labelled(100, 10))
    with pytest.raises(ValueError, match="lists"):
        FewShotConfig(lists={"3shot": file})
    with pytest.raises(ValueError, match="names no file"):
        FewShotConfig(lists={"1shot": []})
