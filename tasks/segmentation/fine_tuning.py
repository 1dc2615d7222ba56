"""A segmentation model fine-tuned from the encoder: data, training, predictions, scores, picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mimbench.api import (
    BatchIndices,
    Confusion,
    Encoder,
    FitReport,
    Panel,
    SemanticSplit,
    TaskContext,
    draw_predictions,
    get_world_size,
    map_over_ranks,
)
from mimbench_tasks.segmentation.config import SegmentationConfig
from mimbench_tasks.segmentation.data import LabelledImages
from mimbench_tasks.segmentation.model import SegmentorTraining, build_segmentor


@dataclass
class Predictions:
    """Predictions of a trained model on the test images."""

    confusion: Confusion
    report: FitReport
    shown: list[Panel] = field(default_factory=list)
    """The first test images, for the figure."""


def train_and_predict(
    config: SegmentationConfig, encoder: Encoder, train: SemanticSplit, test: SemanticSplit, context: TaskContext
) -> Predictions:
    """Fine-tune a segmentor around `encoder` on `train` and compare its predictions with `test`."""
    encoder = config.adapt(encoder)
    segmentor = build_segmentor(config, encoder, len(train.classes), context.input, seed=context.seed)
    model = SegmentorTraining(segmentor, config.background_weight)
    workers, on_cuda = config.train.workers, context.device.type == "cuda"
    images = LabelledImages(train, config, channels=encoder.in_channels, seed=context.seed)
    report = context.fit(
        model,
        images.training_loader(config.train.micro_batch(get_world_size()), workers=workers, pin_memory=on_cuda),
        config.train,
        label=f"segmentation ({config.head})",
        images_per_epoch=len(train),
    )
    model.to(context.device).eval()
    tests = LabelledImages(test, config, channels=encoder.in_channels, seed=None)
    shown: list[Panel] = []

    def predict(pick_and_batch: tuple[BatchIndices, dict[str, list]]) -> tuple[Confusion, list[Panel]]:
        """Counts of a batch, and panels until there are enough for the figure."""
        pick, batch = pick_and_batch
        confusion, panels = Confusion(len(train.classes)), []
        truths = [sample.gt_sem_seg.data[0] for sample in batch["data_samples"]]
        for index, truth, predicted in zip(pick.indices.tolist(), truths, model.predict(batch), strict=True):
            answer = predicted.cpu()
            confusion.add(truth, answer)
            if len(shown) < config.pictures:
                panels.append(Panel(test.image(index), truth.numpy(), answer.numpy()))
                shown.append(panels[-1])
        return confusion, panels

    loader = tests.evaluation_loader(config.train.micro_batch(1), workers=workers, pin_memory=on_cuda)
    predictions = Predictions(Confusion(len(train.classes)), report)
    for confusion, panels in map_over_ranks(predict, zip(loader.sampler, loader, strict=True)):
        predictions.confusion.merge(confusion)
        predictions.shown += panels
    predictions.shown = predictions.shown[: config.pictures]
    return predictions


def draw(predictions: Predictions, classes: tuple[str, ...], workdir: Path) -> Path:
    """Draw the first test images with ground truth and prediction."""
    return draw_predictions(workdir / "predictions.png", predictions.shown, classes)
