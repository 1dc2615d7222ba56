"""What methods share whose official code decays all weights of two or more dimensions."""

from __future__ import annotations

from mimbench.api import Method


class DecaysTokens(Method):
    """A method whose pretraining decays everything of two or more dimensions: tokens, positions and gains, too."""

    def no_weight_decay(self) -> set[str]:
        return set()
