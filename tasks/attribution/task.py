"""Which pixels made a linear probe decide, measured against the known pixels of the object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import (
    ArraySplit,
    Dataset,
    Encoder,
    FrozenFeaturesConfig,
    FrozenFeaturesTask,
    ImageSplit,
    InputError,
    Measured,
    Metric,
    RunError,
    TaskContext,
    TaskResult,
    cosmetic,
    denormalise,
    fork_rng,
    image_grid,
    labelled_split,
    map_over_images,
    map_over_ranks,
    own_share,
    rebuild_encoder,
    require_abilities,
    subset,
)
from mimbench_tasks.attribution import maps, scoring
from mimbench_tasks.attribution.probe import Probe, fit_head

SCORES = ("pointing", "energy", "deletion", "insertion")
CONTROLS = ("random", "centre", "intensity", "edges", "randomised")
"""Maps that know nothing of what the probe has learnt. "randomised": the same map of an encoder with fresh weights."""
LOWER_IS_BETTER = frozenset({"deletion"})
_SHOWN = 6


class AttributionConfig(FrozenFeaturesConfig):
    """Which map is measured, and on which images."""

    map: Literal["occlusion", "gradient-attention", "rollout", "integrated-gradients"] = "occlusion"
    images: int = Field(200, ge=2)
    """Test images, at most: the first ones that the probe classifies right."""
    tolerance: float = Field(0.075, ge=0, lt=1)
    """The highest pixel may lie so far off the object and still count as a hit, as a share of the image's side."""
    inverse_regularisation: float = Field(0.1, gt=0)
    """scikit-learn's C of the probe."""
    batch: int = cosmetic(64, ge=1)
    """Images at once."""


Scores = dict[str, dict[str, Tensor]]
"""By map and score: one value per image, [B]."""


class Attribution(FrozenFeaturesTask):
    """Does a map of what made a linear probe decide point at the object? Images are those that the probe gets right.

    `pointing` says how often the highest pixel lies in the object, `energy` how much of the map does. `deletion` and
    `insertion` are areas under the probability while the highest pixels are deleted or inserted first. `sanity` is the
    rank correlation with the map of an encoder with fresh weights: near 1, the map shows the image and not the encoder.

    A map has shown something if it beats the controls, which know nothing of the encoder: noise, the centre, the
    distance of pixels from the image's mean, edges, and the same map of fresh weights. All but the centre are as coarse
    as the map. `*_margin` is its lead over the best control. `details` holds the controls, the score of the object's
    mask itself, and leads with paired 95 % intervals; the verdict counts a lead if no interval reaches 0.
    """

    name: ClassVar[str] = "attribution"
    version: ClassVar[str] = "2"
    needs: ClassVar[frozenset[str]] = frozenset({"images", "labels", "object-masks"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("pointing", "percent", 0.0, 100.0),
        Metric("energy", "percent", 0.0, 100.0),
        Metric("deletion", "of 1", 0.0, 1.0, higher_is_better=False),
        Metric("insertion", "of 1", 0.0, 1.0),
        Metric("sanity", "of 1", -1.0, 1.0, higher_is_better=False),
        Metric("pointing_margin", "percent", -100.0, 100.0),
        Metric("energy_margin", "percent", -100.0, 100.0),
        Metric("deletion_margin", "of 1", -1.0, 1.0),
        Metric("insertion_margin", "of 1", -1.0, 1.0),
        Metric("top1", "percent", 0.0, 100.0),
    )
    Config = AttributionConfig
    config: AttributionConfig
    default_dataset: ClassVar[str | None] = "solo-scenes"
    waivers: ClassVar[Mapping[str, str]] = {
        "leaked_labels_score_near_best": "the score is about the place of an object, and one colour has none",
    }

    def chance(self, dataset: Dataset) -> float:
        """How often a random pixel lies in the object, or near it."""
        masks = _masks(labelled_split(dataset, "test"))
        return 100 * float(scoring.widened(masks, self._reach(masks)).double().mean())

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        if self.config.map in maps.NEEDS_ATTENTION:
            require_abilities(f"{self.name} with task.map {self.config.map!r}", {"attention"}, encoder)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        config = self.config
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        train_x, test_x = (features.numpy() for features in self.features(train, test, context))
        weight, bias = fit_head(train_x, train.labels.numpy(), len(train.classes), config.inverse_regularisation)
        is_right = (test_x @ weight.numpy().T + bias.numpy()).argmax(1) == test.labels.numpy()
        chosen = np.flatnonzero(is_right)[: config.images].tolist()
        if len(chosen) < 2:
            raise RunError(f"{self.name}: the probe gets {len(chosen)} test images right; 2 or more can be measured")
        context.say(f"{self.name}: {config.map} on {len(chosen):,} test images that the probe gets right")
        shown, masks = self._shown(encoder, subset(test, chosen), context)
        with fork_rng(context.seed):
            fresh = rebuild_encoder(encoder)
        for one in (encoder, fresh):
            one.to(context.device).eval().requires_grad_(False)
        probe = Probe(encoder, weight, bias, layer=config.layer, pooling=config.pooling).to(context.device)

        def measure(place: int) -> tuple[Scores, Tensor, Tensor]:
            part = slice(place, place + config.batch)
            pixels = shown[part].to(context.device)
            noise = scoring.uniform_noise(context.seed, chosen[part], 3 * pixels.shape[-2] * pixels.shape[-1])
            return self._measure(probe, fresh, pixels, masks[part].to(context.device), noise.to(context.device))

        results = map_over_ranks(measure, own_share(range(0, len(chosen), config.batch)))
        of_batches, sanity, panels = zip(*results, strict=True)
        scores = {
            name: {score: torch.cat([one[name][score] for one in of_batches]).double() for score in SCORES}
            for name in of_batches[0]
        }
        result = self._result(scores, torch.cat(sanity), is_right)
        context.say(f"{self.name}: {result.details['verdict']}")
        path = context.workdir / "maps.png"
        pictures = (
            denormalise(shown[:_SHOWN], context.input),
            masks[:_SHOWN, None].float(),
            torch.cat(panels)[:_SHOWN],
        )
        path.write_bytes(_sheet(*pictures, config.map))
        return replace(result, artifacts={"maps": path})

    def _shown(self, encoder: Encoder, images: ImageSplit, context: TaskContext) -> tuple[Tensor, Tensor]:
        """The images as the encoder gets them, float [N, C, S, S], and the pixels of their objects, bool [N, S, S]."""
        pixels = _masks(images)[:, None].to(torch.uint8) * 255
        of_objects = ArraySplit(pixels.expand(-1, encoder.in_channels, -1, -1), images.labels, images.classes)
        shown, objects = (
            torch.cat(map_over_images(lambda batch: batch.cpu(), encoder, one, context, batch_size=self.config.batch))
            for one in (images, of_objects)
        )
        return shown, denormalise(objects, context.input)[:, 0] > 0.5

    def _measure(
        self, probe: Probe, fresh: Encoder, images: Tensor, masks: Tensor, noise: Tensor
    ) -> tuple[Scores, Tensor, Tensor]:
        """Scores of the map and its controls, their rank correlation [B], and panels [B, 3, S, S], on the CPU.

        noise: of each image, [B, 3 * S * S]: a control, and the orders of pixels with equal values.
        """
        target = probe(images).argmax(1)
        explain = maps.MAPS[self.config.map]
        explained = explain(probe, images, target)
        randomised = explain(probe.with_encoder(fresh), images, target)
        of_control, first, second = noise.chunk(3, dim=1)
        of_images = {
            "random": of_control.unflatten(1, masks.shape[1:]),
            "intensity": maps.intensity_map(images),
            "edges": maps.edge_map(images),
        }
        if self.config.map not in maps.PER_PIXEL:
            rows, columns = probe.encoder.grid
            of_images = {name: maps.coarsened(one, (rows, columns)) for name, one in of_images.items()}
        candidates = {
            self.config.map: explained,
            "centre": maps.centre_map(images),
            **of_images,
            "randomised": randomised,
            "object": masks.float(),
        }

        @torch.no_grad()
        def probability(changed: Tensor) -> Tensor:
            return probe(changed).softmax(1).gather(1, target[:, None])[:, 0]

        scores: Scores = {}
        reach = self._reach(masks)
        for name, one in candidates.items():
            order = scoring.ranked(one, first)
            deletion, insertion = scoring.deletion_and_insertion(probability, images, order)
            scores[name] = {
                "pointing": scoring.points_at(order, masks, reach).cpu(),
                "energy": scoring.energy(one, masks).cpu(),
                "deletion": deletion.cpu(),
                "insertion": insertion.cpu(),
            }
        sanity = scoring.rank_correlation(explained, randomised, (first, second)).cpu()
        return scores, sanity, torch.stack((explained, randomised, of_images["intensity"]), 1).cpu()

    def _reach(self, masks: Tensor) -> float:
        """How far off the object the highest pixel may lie, px."""
        return self.config.tolerance * min(masks.shape[1:])

    def _result(self, scores: Scores, sanity: Tensor, is_right: np.ndarray) -> TaskResult:
        count = len(sanity)
        means = {
            name: {score: float(values.mean()) * (100 if score == "pointing" else 1) for score, values in one.items()}
            for name, one in scores.items()
        }
        measured = means[self.config.map]
        metrics = {score: Measured(value, count) for score, value in measured.items()}
        metrics["sanity"] = Measured(float(sanity.mean()), count)
        leads = self._leads(scores)
        for score in SCORES:
            metrics[f"{score}_margin"] = Measured(min(lead for lead, _, _ in leads[score].values()), count)
        metrics["top1"] = Measured(100 * float(is_right.mean()), len(is_right))
        shown = [score for score in SCORES if all(low > 0 for _, low, _ in leads[score].values())]
        verdict = f"shown to be better than every control by {', '.join(shown) or 'no score'}"
        if missed := [score for score in SCORES if score not in shown]:
            verdict += f"; not shown by {', '.join(missed)}"
        by_sample = {
            score: values.bool().numpy() if score == "pointing" else values.numpy()
            for score, values in scores[self.config.map].items()
        }
        controls = {name: means[name] for name in (*CONTROLS, "object")}
        return TaskResult(
            metrics,
            details={"controls": controls, "leads": leads, "verdict": verdict},
            by_sample=by_sample | {"sanity": sanity.numpy()},
        )

    def _leads(self, scores: Scores) -> Mapping[str, Mapping[str, list[float]]]:
        """By score and control: how far the map is ahead, and the ends of the paired 95 % interval over images."""
        leads: dict[str, dict[str, list[float]]] = {}
        for score in SCORES:
            unit = (100 if score == "pointing" else 1) * (-1 if score in LOWER_IS_BETTER else 1)
            explained = scores[self.config.map][score]
            ahead = {name: unit * (explained - scores[name][score]) for name in CONTROLS}
            leads[score] = {name: scoring.mean_with_interval(one) for name, one in ahead.items()}
        return leads


def _masks(split: ImageSplit) -> Tensor:
    """Pixels of the objects, bool [N, H, W]."""
    if split.object_masks is None:
        raise InputError("the dataset says that it provides object-masks, and a split of it has none")
    return split.object_masks


def _sheet(images: Tensor, objects: Tensor, panels: Tensor, name: str) -> bytes:
    """A PNG with a row per image: the image, its object, the map, the map of fresh weights, and the intensity."""
    highest = panels.amax((-2, -1), keepdim=True).clamp_min(1e-12)
    lowest = panels.amin((-2, -1), keepdim=True)
    scaled = (panels - lowest) / (highest - lowest).clamp_min(1e-12)
    rows = [
        (image[:1], one, *(panel[None] for panel in maps_of))
        for image, one, maps_of in zip(images.clamp(0, 1), objects, scaled, strict=True)
    ]
    return image_grid(rows, columns=("image", "object", name, "fresh weights", "intensity"))
