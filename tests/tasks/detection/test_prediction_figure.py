"""The picture of detections: colours, and labels that are legible and within the image."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from helpers.tiny_detection import CLASSES, write_scenes
from mimbench.drawing import class_colours
from mimbench_tasks.detection.prediction_figure import draw_predictions


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The figure of four scenes, two boxes found in each: at the top left and at the bottom right."""
    scenes = write_scenes(tmp_path, 4)
    annotations = COCO(str(scenes.annotations))
    samples = []
    for image_id in (1, 2, 3, 4):
        sample = DetDataSample(metainfo={"img_id": image_id})
        boxes = torch.tensor([[0.0, 0, 20, 20], [58, 50, 64, 64]])
        sample.pred_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 1]), scores=torch.tensor([0.5, 0.97])
        )
        samples.append(sample)
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **options: (figures.append(self), save(self, *args, **options))
    )
    names = {10 * (label + 1): name for label, name in enumerate(CLASSES)}
    draw_predictions(tmp_path / "p.png", samples, annotations, scenes.images, names)
    return figures[0]


def test_boxes_have_the_colours_of_their_classes(drawn):
    colours = class_colours((0, 1), CLASSES)
    for axes in drawn.axes[4:]:
        assert [patch.get_edgecolor()[:3] for patch in axes.patches] == [colours[0], colours[1]]
        assert [text.get_text() for text in axes.texts] == ["disc .50", "box .97"]


def test_text_is_legible_in_a_column_and_within_its_image(drawn):
    reduced = 3.3 / drawn.get_figwidth()
    texts = [text for axes in drawn.axes for text in axes.texts]
    labels = [axes.yaxis.label for axes in drawn.axes if axes.get_ylabel()]
    assert min(label.get_fontsize() for label in labels) * reduced >= 5.99
    assert min(text.get_fontsize() for text in texts) * reduced >= 3.59  # larger ones hide what they name
    for axes in drawn.axes[4:]:
        panel = axes.get_window_extent()
        for text in axes.texts:
            box = text.get_window_extent()
            assert panel.x0 - 2 <= box.x0 < box.x1 <= panel.x1 + 2
            assert panel.y0 - 2 <= box.y0 < box.y1 <= panel.y1 + 2
