"""Membership inference and exposure of canaries: what a pretrained encoder or method gives away of its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import (
    Audit,
    AuditInput,
    DataChoice,
    Dataset,
    Encoder,
    InputError,
    Measured,
    Metric,
    RegressionConfig,
    SampleScores,
    TaskContext,
    TaskResult,
    fit_regression,
    image_split,
    map_over_images,
    open_dataset,
    solver_protocol,
)
from mimbench_tasks.privacy import attacks, measures
from mimbench_tasks.privacy.planted import ListingEncoder, StoringMethod
from mimbench_tasks.privacy.pool import CODE, CODES, COPIES, Pool, find_pool

RATES = {"tpr_at_1": 0.01, "tpr_at_0_1": 0.001}
"""False-positive rates, 0 to 1, of the true-positive rates that are reported."""
EXPOSED = (1, 4, 16)
"""Numbers of copies whose exposure is a metric."""
PLANTED = {"members": 80, "non_members": 80, "codes": 2, "unseen_codes": 32}
"""Options of the dataset that the audit is calibrated on."""
POINTS = 41
"""Points of the recorded ROC curve. Its false-positive rates go from one false alarm to 1 in equal factors."""
_MOST_BITS = 64.0


class PrivacyConfig(RegressionConfig):
    """Which attack, and on how many images. The regression is the head of the attack "features"."""

    attack: Literal["reconstruction", "features", "alignment"] = "reconstruction"
    images: int = Field(10_000, ge=2)
    """Members and other images, at most so many of each."""
    masks: int = Field(16, ge=1)
    """Masks per image of the attack "reconstruction"."""
    crops: int = Field(8, ge=2)
    """Crops per image of the attack "alignment"."""
    crop_scale: float = Field(0.6, gt=0, le=1)
    """Least share of the image's area that such a crop has."""


class Privacy(Audit):
    """Whether an attacker can say which images a pretraining saw. Each attack gives images a score.

    - "reconstruction" needs the whole method: minus the error of masked pixels.
    - "features": log-odds of a logistic regression on features, fitted to half of the members and of the others. The
      other half is scored. Its attacker knows part of the training set.
    - "alignment": minus the distance between features of crops.

    `auc` is the probability that a member has a higher score than another image, 50 % by chance. `tpr_at_1` is the
    share of members that is found while 1 % of the others are taken for members, and `tpr_at_0_1` while 0.1 % are; each
    needs 10 false alarms, thus 1,000 and 10,000 others. `advantage` is the largest difference of true- and
    false-positive rate, which is above 0 by chance too. `exposure_N` is the mean exposure in bits of canaries that were
    N times among the training images, against codes that were not, if the dataset has some (planted-digits); it is
    about 1.44 if nothing is stored. `details["intervals"]` has 95 % bootstrap intervals.

    Members are the images that the checkpoint was pretrained on, as far as it says so, and else the whole train split.
    Other images are the rest of the train split if a share of it was trained on (`pretrain.data_share`), and else the
    test split. Both must come from one distribution, in random order.
    """

    name: ClassVar[str] = "privacy"
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("auc", "percent", 0.0, 100.0, higher_is_better=False),
        *(Metric(name, "percent", 0.0, 100.0, higher_is_better=False) for name in RATES),
        Metric("advantage", "percent", 0.0, 100.0, higher_is_better=False),
        *(Metric(f"exposure_{copies}", "bits", 0.0, _MOST_BITS, higher_is_better=False) for copies in EXPOSED),
    )
    Config = PrivacyConfig
    config: PrivacyConfig
    doses: ClassVar[tuple[float, ...]] = (0.0, 0.25, 0.5, 1.0)

    def __init__(self, config: PrivacyConfig) -> None:
        super().__init__(config)
        self.needs_reconstruction = config.attack == "reconstruction"

    def protocol_on(self, device: torch.device) -> dict[str, Any]:
        return solver_protocol(self.config.solver, device) if self.config.attack == "features" else {}

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        """Each image has its own score."""
        return ""

    def chance(self, dataset: Dataset) -> float:
        """A score that knows nothing ranks a member above another image half of the time."""
        return 50.0

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        for name in ("train", "test"):
            if len(image_split(dataset, name)) < 2:
                raise InputError(f"{self.name}: the {name} split of dataset {dataset.name!r} has fewer than two images")
        if CODES in dataset.parts and not {CODE, COPIES} <= set(image_split(dataset, CODES).attributes):
            raise InputError(f"{self.name}: the part {CODES!r} of {dataset.name!r} needs attributes {CODE}, {COPIES}")
        if self.config.attack != "reconstruction":
            try:
                encoder.layer_index(self.config.layer)
                encoder.check_pooling(self.config.pooling)
            except InputError as error:  # the message begins with the option's name
                raise InputError(f"task.{error}") from error

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Attack `context.method` by its reconstructions, or else `encoder`."""
        content = context.pretrained_on.content if context.pretrained_on else None
        is_pretrained_on = content == dataset.fingerprint()
        if content is not None and not is_pretrained_on:
            context.say(f"{self.name}: the pretraining saw other images than these, so that none of them is a member")
        pool = find_pool(dataset, context.pretrained_on if is_pretrained_on else None, self.config.images)
        attack, sizes = self.config.attack, [len(pool.members()), len(pool.others())]
        context.say(f"{self.name}: attack by {attack} on {sizes[0]:,} members and {sizes[1]:,} other images")
        if attack == "features":
            scores = self._by_features(pool, dataset, context)
        else:
            scores = self._by_images(encoder, pool, dataset, context)
        result = _measure(pool, scores, context.seed)
        details = {"others_from": pool.held_out, "is_pretrained_on_them": is_pretrained_on}
        return replace(result, details={**details, **result.details})

    def _by_images(self, encoder: Encoder, pool: Pool, dataset: Dataset, context: TaskContext) -> np.ndarray:
        """Scores of all images, float64 [N]."""
        if self.config.attack == "reconstruction":
            if context.method is None:
                raise InputError(f"{self.name}: the attack by reconstruction needs the whole pretrained method")
            encoder = context.method.encoder
            scorer = attacks.reconstruction(context.method.eval(), self.config.masks)
        else:
            boxes = attacks.draw_boxes(self.config.crops, self.config.crop_scale)
            scorer = attacks.alignment(encoder, boxes, self.config.layer, self.config.pooling)

        def score(images: Tensor) -> Tensor:
            return scorer(images).float().cpu()

        of_batches = [
            scores
            for name in pool.indices
            for scores in map_over_images(score, encoder, pool.images(dataset, name), context, batch_size=attacks.BATCH)
        ]
        return torch.cat(of_batches).double().numpy()

    def _by_features(self, pool: Pool, dataset: Dataset, context: TaskContext) -> np.ndarray:
        """Scores of the images that the head is not fitted to, float64 [N], and infinity for those that it is."""
        layer, pooling = self.config.layer, self.config.pooling
        of_splits = [
            context.features(image_split(dataset, name), name, layer=layer, pooling=pooling)[indices]
            for name, indices in pool.indices.items()
        ]
        x = torch.cat(of_splits).numpy()
        rng = np.random.RandomState(context.seed)
        fitted = np.concatenate(
            [rng.permutation(group)[: len(group) // 2] for group in (pool.members(), pool.others())]
        )
        y = pool.is_member[fitted].astype(np.int64)
        head = fit_regression(x[fitted], y, self.config, context.seed, device=context.device)
        probability = head.classifier.predict_proba(x)[:, 1].astype(np.float64).clip(1e-12, 1 - 1e-12)
        scores = np.log(probability) - np.log1p(-probability)
        scores[fitted] = np.inf
        return scores

    def plant(self, dose: float, seed: int, folder: Path) -> AuditInput:
        """An encoder or method that stores as many images as there are members; `dose` of them are members."""
        dataset, other = (
            open_dataset(
                "planted-digits",
                {
                    "members": 80,
                    "non_members": 80,
                    "codes": 2,
                    "unseen_codes": 32,
                    "reference": reference,
                    "seed": seed,
                },
                folder,
            )
            for reference in (False, True)
        )
        train, unseen = (image_split(one, "train") for one in (dataset, other))
        chosen, rest = (torch.nonzero(split.attributes[CODE] == 0).flatten() for split in (train, unseen))
        count = round(dose * len(chosen))
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
        listed = [train[int(index)][0] for index in chosen[order[:count]]]
        listed += [unseen[int(index)][0] for index in rest[: len(chosen) - count]]
        stored = torch.stack(listed).float()
        return self._storing(dataset, stored)

    def oracle(self, seed: int, folder: Path) -> AuditInput:
        """The list of all members is written into the encoder, or the method stores all of them."""
        return self.plant(1.0, seed, folder)

    def _storing(self, dataset: Dataset, stored: Tensor) -> AuditInput:
        known = DataChoice(content=dataset.fingerprint())
        is_steady = self.config.attack == "alignment"
        views = stored
        if is_steady:
            views = torch.cat(attacks.crops(stored, attacks.draw_boxes(self.config.crops, self.config.crop_scale)))
        encoder = ListingEncoder(views, is_steady)
        method = StoringMethod(encoder, stored).eval() if self.needs_reconstruction else None
        return AuditInput(dataset, encoder, known, method)


def _measure(pool: Pool, scores: np.ndarray, seed: int) -> TaskResult:
    """Metrics of scores [N] of the pool's images. Those that are infinite are left out."""
    scored = np.isfinite(scores)
    members, others = (scores[group[scored[group]]] for group in (pool.members(), pool.others()))
    metrics, intervals = measures.separation(members, others, RATES, seed)
    least = {name: round(measures.PER_RATE / rate) for name, rate in RATES.items()}
    absent = {
        name: f"it needs {count:,} images that are no members, and there are {len(others):,}"
        for name, count in least.items()
        if name not in metrics
    }
    exposed = _exposures(pool, scores)
    for copies in EXPOSED:
        if copies in exposed:
            metrics[f"exposure_{copies}"] = Measured(float(exposed[copies].mean()), len(exposed[copies]))
        else:
            absent[f"exposure_{copies}"] = f"the dataset has no canary with {copies} copies in its train split"
    false, true = measures.roc(members, others)
    rates = np.geomspace(1 / len(others), 1, POINTS).tolist()
    unseen = len(pool.canaries(0))
    details: dict[str, Any] = {
        "members": len(members),
        "others": len(others),
        "intervals": intervals,
        "exposures": {str(copies): values.tolist() for copies, values in exposed.items()},
        **({"exposure_if_not_stored": measures.unstored_exposure(unseen)} if exposed else {}),
        **({"absent": absent} if absent else {}),
    }
    return TaskResult(
        metrics,
        curves={
            "false_positive_rate": rates,
            "true_positive_rate": measures.curve(false, true, rates),
            **(
                {"copies": list(exposed), "exposure": [float(values.mean()) for values in exposed.values()]}
                if exposed
                else {}
            ),
        },
        details=details,
        scores=SampleScores(
            pool.ids[scored],
            {"score": scores[scored]},
            attributes={"member": pool.is_member[scored], CODE: pool.is_code[scored], COPIES: pool.copies[scored]},
            split="+".join(pool.indices),
        ),
    )


def _exposures(pool: Pool, scores: np.ndarray) -> dict[int, np.ndarray]:
    """Exposures in bits of the canaries, by their number of copies."""
    unseen = scores[pool.canaries(0)]
    if not len(unseen):
        return {}
    counts = sorted({int(count) for count in pool.copies[pool.is_code] if count})
    return {count: measures.exposures(scores[pool.canaries(count)], unseen) for count in counts}
