"""Membership inference and exposure of canaries: what a pretrained encoder or method gives away of its images."""

from __future__ import annotations

from collections.abc import Callable
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
    Method,
    Metric,
    RegressionConfig,
    RunError,
    TaskContext,
    TaskResult,
    fit_regression,
    image_split,
    map_over_images,
    open_dataset,
    solver_protocol,
)
from mimbench_tasks.privacy import attacks
from mimbench_tasks.privacy.planted import ListingEncoder, StoringMethod
from mimbench_tasks.privacy.pool import CODE, CODES, Pool, find_pool, plain_images
from mimbench_tasks.privacy.result import EXPOSED, RATES, describe

CALIBRATED_ON = {"members": 80, "non_members": 80, "codes": 2, "unseen_codes": 32}
"""Options of planted-digits, the dataset that the audit is calibrated on."""
FEWEST = 2
"""Members, and non-members, that an attack needs."""
FEWEST_FITTED = 4
"""The same for the attack "features": half of them are fitted, and C is chosen on a part of these."""
_MOST_BITS = 64.0


class PrivacyConfig(RegressionConfig):
    """Which attack, and on how many images. The regression is the head of the attack "features"."""

    attack: Literal["reconstruction", "features", "alignment"] = "reconstruction"
    images: int = Field(10_000, ge=2)
    """Members and non-members, at most so many of each."""
    masks: int = Field(16, ge=1)
    """Masks per image of the attack "reconstruction"."""
    crops: int = Field(8, ge=2)
    """Crops per image of the attack "alignment"."""
    crop_scale: float = Field(0.6, gt=0, le=1)
    """Least share of the image's area that such a crop has."""


class Privacy(Audit):
    """Whether an attacker can say which images a pretraining saw. Each attack gives images a score.

    - "reconstruction" needs the whole method: minus the error of masked pixels.
    - "features": log-odds of a logistic regression on features, fitted to half of the members and of the
      non-members. The other half is scored. Its attacker knows part of the training set.
    - "alignment": minus the distance between features of crops.

    `auc` is the probability that a member has a higher score than a non-member, 50 % by chance. `tpr_at_1` is the
    share of members that is found while 1 % of the non-members are taken for members, and `tpr_at_0_1` while 0.1 % are;
    each needs 10 false alarms, thus 1,000 and 10,000 non-members. `advantage` is the largest difference of true- and
    false-positive rate, which is above 0 by chance too. `exposure_N` is the mean exposure in bits of canaries that were
    N times among the training images, against codes that were not, if the dataset has some (planted-digits); it is
    about 1.44 if nothing is stored. `details["intervals"]` has 95 % bootstrap intervals.

    Members are the images that the checkpoint was pretrained on, as far as it says so, and else the whole train split.
    Non-members are the rest of the train split if a share of it was trained on (`pretrain.data_share`), and else the
    test split. Both must come from one distribution, in random order.
    """

    name: ClassVar[str] = "privacy"
    version: ClassVar[str] = "2"
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
        """A score that knows nothing ranks a member above a non-member half of the time."""
        return 50.0

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        for name in ("train", "test"):
            count = int(plain_images(image_split(dataset, name)).sum())
            if count < self._fewest():
                raise InputError(
                    f"{self.name}: the {name} split of dataset {dataset.name!r} has {count} images that are no codes; "
                    f"the attack {self.config.attack!r} needs {self._fewest()} or more"
                )
        if CODES in dataset.parts and CODE not in image_split(dataset, "train").attributes:
            raise InputError(
                f"{self.name}: dataset {dataset.name!r} has a part {CODES!r}, but its train split has no attribute "
                f"{CODE!r}, 1 for codes; add it"
            )
        if self.config.attack != "reconstruction":
            try:
                encoder.layer_index(self.config.layer)
                encoder.check_pooling(self.config.pooling)
            except InputError as error:  # the message begins with the option's name
                raise InputError(f"task.{error}") from error

    def check_method(self, method: type[Method]) -> None:
        if self.needs_reconstruction and "mixed-images" in method.encoder_needs:
            raise InputError(
                f"{self.name}: method {method.name!r} mixes each image with another one of its batch, so that an image "
                "has no error of its own; set task.attack to features or alignment"
            )

    def _fewest(self) -> int:
        return FEWEST_FITTED if self.config.attack == "features" else FEWEST

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Attack `context.method` by its reconstructions, or else `encoder`."""
        content = context.pretrained_on.content if context.pretrained_on else None
        is_pretrained_on = None if content is None else content == dataset.fingerprint()
        if is_pretrained_on is False:
            context.say(f"{self.name}: the pretraining saw another dataset, so that those called members may be none")
        if is_pretrained_on is None and context.pretrained_on:
            context.say(f"{self.name}: the checkpoint does not say what its dataset held; all of train are members")
        pool = find_pool(dataset, context.pretrained_on if is_pretrained_on else None, self.config.images)
        attack, sizes = self.config.attack, [len(pool.members()), len(pool.non_members())]
        if min(sizes) < self._fewest():
            raise InputError(
                f"{self.name}: there are {sizes[0]} members and {sizes[1]} non-members after pretrain.data_share; the "
                f"attack {attack!r} needs {self._fewest()} or more of each"
            )
        context.say(f"{self.name}: attack by {attack} on {sizes[0]:,} members and {sizes[1]:,} non-members")
        if attack == "features":
            scores, is_scored = self._by_features(encoder, pool, dataset, context)
        else:
            scores = self._by_images(encoder, pool, dataset, context)
            is_scored = np.ones(len(scores), bool)
        result = describe(pool, scores, is_scored, context.seed)
        details = {"non_members_from": pool.held_out, "is_pretrained_on_them": is_pretrained_on}
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

        return _over_pool(scorer, encoder, pool, dataset, context).double().numpy()

    def _by_features(
        self, encoder: Encoder, pool: Pool, dataset: Dataset, context: TaskContext
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores of all images, float64 [N], and which ones the head is not fitted to, bool [N]."""
        layer, pooling = self.config.layer, self.config.pooling

        def features(images: Tensor) -> Tensor:
            return encoder.features(images, layer).pool(pooling)

        x = _over_pool(features, encoder, pool, dataset, context).numpy()
        rng = np.random.RandomState(context.seed)
        fitted = np.concatenate(
            [rng.permutation(group)[: len(group) // 2] for group in (pool.members(), pool.non_members())]
        )
        y = pool.is_member[fitted].astype(np.int64)
        head = fit_regression(x[fitted], y, self.config, context.seed, device=context.device)
        probability = head.classifier.predict_proba(x)[:, 1].astype(np.float64).clip(1e-12, 1 - 1e-12)
        is_scored = np.ones(len(x), bool)
        is_scored[fitted] = False
        return np.log(probability) - np.log1p(-probability), is_scored

    def plant(self, dose: float, seed: int, folder: Path) -> AuditInput:
        """An encoder or method that stores as many images as there are members; `dose` of them are members."""
        dataset, other = (
            open_dataset("planted-digits", {**CALIBRATED_ON, "reference": reference, "seed": seed}, folder)
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


def _over_pool(
    measure: Callable[[Tensor], Tensor], encoder: Encoder, pool: Pool, dataset: Dataset, context: TaskContext
) -> Tensor:
    """What `measure` gives for the images of the pool, float32 [N, ...] on the CPU. No other image is encoded.

    Raises:
        RunError: some values are not finite.
    """

    def of_batch(images: Tensor) -> Tensor:
        return measure(images).float().cpu()

    of_batches = [
        values
        for name in pool.indices
        for values in map_over_images(of_batch, encoder, pool.images(dataset, name), context, batch_size=attacks.BATCH)
    ]
    measured = torch.cat(of_batches)
    is_finite = measured.isfinite().reshape(len(measured), -1).all(1)
    if not is_finite.all():
        raise RunError(
            f"privacy: {int((~is_finite).sum()):,} of {len(is_finite):,} images get NaN or infinity, as from a "
            "pretraining that diverged; lower pretrain.base_lr"
        )
    return measured
