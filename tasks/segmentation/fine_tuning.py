"""A segmentation model fine-tuned from the encoder: data, training, predictions, scores, picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from mimbench.api import Encoder, FitReport, SemanticSplit, TaskContext, get_world_size
from mimbench_tasks.segmentation.config import SegmentationConfig
from mimbench_tasks.segmentation.data import LabelledImages
from mimbench_tasks.segmentation.evaluation import Confusion
from mimbench_tasks.segmentation.model import SegmentorTraining, build_segmentor
from mimbench_tasks.segmentation.prediction_figure import Panel, draw_predictions


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
    model = SegmentorTraining(build_segmentor(config, encoder, len(train.classes), context.input, seed=context.seed))
    world, on_cuda = get_world_size(), context.device.type == "cuda"
    if world > 1 and on_cuda:  # torch's SyncBatchNorm works on CUDA only
        model.segmentor = nn.SyncBatchNorm.convert_sync_batchnorm(model.segmentor)
    share = max(1, config.train.micro_batch(world))
    workers = config.train.workers
    images = LabelledImages(train, config, channels=encoder.in_channels, seed=context.seed)
    report = context.fit(
        model,
        images.training_loader(share, workers=workers, pin_memory=on_cuda),
        config.train,
        label=f"segmentation ({config.head})",
        images_per_epoch=len(train),
    )
    model.to(context.device).eval()
    predictions = Predictions(Confusion(len(train.classes)), report)
    tests = LabelledImages(test, config, channels=encoder.in_channels, seed=None)
    for batch in tests.evaluation_loader(share, workers=workers, pin_memory=on_cuda):
        truths = [sample.gt_sem_seg.data[0] for sample in batch["data_samples"]]
        for truth, predicted in zip(truths, model.predict(batch), strict=True):
            _note(predictions, test, truth, predicted.cpu(), config.pictures)
    return predictions


def draw(predictions: Predictions, classes: tuple[str, ...], workdir: Path) -> Path:
    """Draw the first test images with ground truth and prediction."""
    return draw_predictions(workdir / "predictions.png", predictions.shown, classes)


def _note(predictions: Predictions, test: SemanticSplit, truth: Tensor, predicted: Tensor, pictures: int) -> None:
    predictions.confusion.add(truth, predicted)
    if len(predictions.shown) < pictures:
        predictions.shown.append(Panel(test.image(len(predictions.shown)), truth.numpy(), predicted.numpy()))
