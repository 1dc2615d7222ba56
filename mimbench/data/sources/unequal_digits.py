"""Digits of two groups that look different, of which a training set has unequal shares."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from mimbench.contract import ArraySplit, DataConfig, DataSizes, SplitName
from mimbench.data.pipeline.subsets import complement, stratified
from mimbench.data.sources.embedded import DrawnFromDigits, EmbeddedConfig
from mimbench.data.sources.in_memory import limited

_TRAIN, _TEST = 2600, 1000


class UnequalDigitsConfig(EmbeddedConfig):
    """How many of the training images are of group B."""

    share: float = Field(default=0.5, ge=0, le=1)
    """Share of the training images of each class that are of group B, to within one image."""
    seed: int = Field(default=0, ge=0)


class UnequalDigits(DrawnFromDigits):
    """Digits of mnist5k in two groups: A as they are, B inverted and turned by 90 degrees; uint8 [1, 28, 28].

    The attribute "group" is 0 for A and 1 for B. In the train split `share` of each class are of group B; in the test
    split it is half. Whatever the share, the train split has the same 2,600 digits. Encoders can thus be pretrained on
    unequal shares (`data.share`), and compared by heads on equal ones (`task.data.share=0.5`).
    """

    name = "unequal-digits"
    provides = frozenset({"images", "labels", "attributes"})
    Config = UnequalDigitsConfig
    config: UnequalDigitsConfig

    def make_splits(self) -> dict[str, ArraySplit]:
        config = self.config
        return {
            "train": self._draw("train", limited(_TRAIN, config.train_limit), config.share, 0),
            "test": self._draw("test", limited(_TEST, config.test_limit), 0.5, 1),
        }

    def _draw(self, name: SplitName, count: int, share: float, part: int) -> ArraySplit:
        """A split of `count` images. part: number of the split, for the random stream."""
        digits = self.digits.split(name)
        chosen = stratified(digits.labels.numpy(), count, seed=0)
        images, labels = digits.images.numpy()[chosen], digits.labels.numpy()[chosen]
        rng = np.random.RandomState([self.config.seed, part])
        order = rng.permutation(len(labels))
        # Which digits are of group B: more of the same ones as the share rises, counted in each class.
        of_b = order[stratified(labels[order], round(share * len(labels)), seed=0)] if share else order[:0]
        groups = np.ones(len(labels), np.int64)
        groups[complement(len(labels), of_b)] = 0
        images[of_b] = 255 - np.rot90(images[of_b], axes=(2, 3))
        return ArraySplit(
            torch.from_numpy(images), torch.from_numpy(labels), digits.classes, {"group": torch.from_numpy(groups)}
        )

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, UnequalDigitsConfig):
            return None
        train, test = limited(_TRAIN, config.train_limit), limited(_TEST, config.test_limit)
        return DataSizes(train, test, classes=10, channels=1, source="its options", side=28)
