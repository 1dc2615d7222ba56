"""mIoU by hand, and the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from mimbench.report.scores.pixel_scores import ResampledPixels
from mimbench.store.samples import Pixels
from mimbench.toolkit.class_confusion import Confusion, constant_score
from mimbench.toolkit.class_figure import UNKNOWN, Panel, draw_predictions, paint, panel_colours

TRUTH = torch.tensor([[0, 0, 1, 1], [0, 2, 1, 255]])
PREDICTION = torch.tensor([[0, 1, 1, 1], [0, 2, 0, 3]])
"""Class 0: 2 hit of 3, 3 predicted. Class 1: 2 of 3, 3 predicted. Class 2: 1 of 1. Class 3, only where nobody knows."""


def scored(*pairs, classes=4):
    confusion = Confusion(classes)
    for truth, prediction in pairs:
        confusion.add(truth, prediction)
    return confusion.scores()


def test_counts_of_single_images_give_the_scores_of_all():
    one, two, both = Confusion(4), Confusion(4), Confusion(4)
    one.add(TRUTH, PREDICTION)
    two.add(TRUTH.flip(0), torch.zeros_like(TRUTH))
    for part in (one, two):
        both.merge(part)
    pixels, scores = both.pixels(), both.scores()
    assert pixels.problem() == ""
    assert pixels.hits.tolist() == [[2, 2, 1, 0], [3, 0, 0, 0]]
    assert pixels.truth.tolist() == [[3, 3, 1, 0], [3, 3, 1, 0]]
    assert pixels.predicted.tolist() == [[3, 3, 1, 0], [7, 0, 0, 0]]
    of_all = {"mIoU": scores.mean_iou, "mAcc": scores.mean_accuracy, "aAcc": scores.accuracy}
    for metric, score in pixels.metrics.items():
        counts = Pixels(pixels.hits, pixels.truth, pixels.predicted, score)
        assert ResampledPixels(counts)(np.ones(2)) == pytest.approx(of_all[metric])


def test_a_hand_example_with_an_ignored_pixel_and_an_absent_class():
    scores = scored((TRUTH, PREDICTION))
    assert scores.iou[:3] == pytest.approx([50, 50, 100])
    assert math.isnan(scores.iou[3]), "class 3 neither occurs nor is predicted on a pixel that counts"
    assert scores.mean_iou == pytest.approx(200 / 3)
    assert scores.class_accuracy[:3] == pytest.approx([200 / 3, 200 / 3, 100])
    assert scores.mean_accuracy == pytest.approx(700 / 9)
    assert scores.accuracy == pytest.approx(500 / 7)
    assert scores.pixels == [3, 3, 1, 0]


def test_an_absent_class_that_is_predicted_counts_as_nothing():
    prediction = PREDICTION.clone()
    prediction[1, 1] = 3
    scores = scored((TRUTH, prediction))
    assert scores.iou == pytest.approx([50, 50, 0, 0])
    assert scores.mean_iou == pytest.approx(25)
    assert math.isnan(scores.class_accuracy[3])
    assert scores.mean_accuracy == pytest.approx((200 / 3 + 200 / 3 + 0) / 3)


def test_images_are_summed_before_anything_is_divided():
    together = scored((torch.cat((TRUTH, TRUTH.T.reshape(2, 4))), torch.cat((PREDICTION, PREDICTION.T.reshape(2, 4)))))
    one_by_one = scored((TRUTH, PREDICTION), (TRUTH.T, PREDICTION.T))
    assert together.mean_iou == one_by_one.mean_iou
    assert together.pixels == one_by_one.pixels == [6, 6, 2, 0]


def test_it_agrees_with_mmsegmentation():
    from mmseg.evaluation import IoUMetric

    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 7, (40, 30), generator=generator)
    truth[truth == 5] = 255
    prediction = torch.where(torch.rand(truth.shape, generator=generator) < 0.6, truth, (truth + 1) % 5)
    prediction[truth == 255] = 6
    areas = IoUMetric.intersect_and_union(prediction, truth, 7, 255)
    theirs = IoUMetric.total_area_to_metrics(*areas)
    ours = scored((truth, prediction), classes=7)
    assert np.array(ours.iou) == pytest.approx(100 * theirs["IoU"], nan_ok=True)
    assert np.array(ours.class_accuracy) == pytest.approx(100 * theirs["Acc"], nan_ok=True)
    assert ours.accuracy == pytest.approx(100 * float(theirs["aAcc"]))
    assert ours.mean_iou == pytest.approx(100 * float(np.nanmean(theirs["IoU"])))


def test_chance_answers_the_most_frequent_class():
    train, test = torch.tensor([5, 90, 5]), torch.tensor([30, 60, 0])
    assert constant_score(train, test) == pytest.approx((0 + 100 * 60 / 90) / 2)
    assert constant_score(torch.tensor([0, 0, 9]), test) == 0


def test_colours_are_distinct_and_fixed_for_few_classes():
    labels = np.arange(11).reshape(1, 11)
    names = ("background", *"0123456789")
    colours = panel_colours([Panel(None, labels, labels)], names)
    assert len(set(colours.values())) == 11
    seldom = panel_colours([Panel(None, labels[:, 7:9], labels[:, 7:9])], names)
    assert seldom == {label: colours[label] for label in (7, 8)}
    many = np.arange(40).reshape(1, 40)
    assert len(set(panel_colours([Panel(None, many, many)], [str(n) for n in range(150)]).values())) == 40


def test_pixels_that_are_not_scored_are_painted_white():
    assert UNKNOWN == "white"
    painted = paint(np.array([[255, 0]]), {0: (0.1, 0.2, 0.3)})
    np.testing.assert_allclose(painted, [[[1, 1, 1], [0.1, 0.2, 0.3]]])


def test_the_picture_holds_every_panel(tmp_path):
    Image.fromarray(np.full((20, 30), 90, np.uint8)).save(tmp_path / "a.png")
    labels = np.zeros((20, 30), np.uint8)
    labels[5:9], labels[:2] = 1, 255
    path = draw_predictions(tmp_path / "p.png", [Panel(tmp_path / "a.png", labels, labels)] * 3, ("background", "x"))
    with Image.open(path) as picture:
        assert picture.width > picture.height > 500
        assert len(set(picture.convert("RGB").getdata())) > 10
