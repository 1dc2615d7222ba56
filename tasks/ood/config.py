"""Options of the tasks on other test sets: where the sets are."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from mimbench.api import Config, RegressionConfig, cosmetic
from mimbench_tasks.finetune.config import FinetuneConfig
from mimbench_tasks.robustness.severities import SEVERITIES


class SetOptions(Config):
    """Folders of the sets. Without any, test images are corrupted as `robustness` does.

    The protocol holds hashes: of ReaL's labels, and of the files of all others, of ImageNet-C per corruption: the names
    and sizes of all files, and the content of up to 100 per folder.
    """

    imagenet_a: Path | None = cosmetic(None)
    """ImageNet-A: 200 class folders, named by WordNet id."""
    imagenet_r: Path | None = cosmetic(None)
    """ImageNet-R: 200 class folders, named by WordNet id."""
    imagenet_sketch: Path | None = cosmetic(None)
    """ImageNet-Sketch: 1,000 class folders, named by WordNet id."""
    imagenet_v2: Path | None = cosmetic(None)
    """ImageNet-V2, one of its three samples: 1,000 class folders, named 0 to 999."""
    imagenet_real: Path | None = cosmetic(None)
    """ReaL: its file real.json, with the labels of the 50,000 validation images in the order of their numbers."""
    imagenet_c: Path | None = cosmetic(None)
    """ImageNet-C: CORRUPTION/SEVERITY/WordNet id, possibly with a folder per kind of corruption above."""
    set_workers: int = cosmetic(0, ge=0, le=1024)
    """Processes that read, or corrupt, images of the sets."""
    test_limit: int = Field(1000, ge=1)
    """Without any set: test images to corrupt, at most."""
    severities: tuple[int, ...] = Field(SEVERITIES, min_length=1)
    """Without any set: severities of the corruptions."""

    @field_validator("severities")
    @classmethod
    def _known(cls, severities: tuple[int, ...]) -> tuple[int, ...]:
        if not set(severities) <= set(SEVERITIES) or list(severities) != sorted(set(severities)):
            raise ValueError(f"severities must be some of 1 to 5, rising, not {list(severities)}")
        return severities


class OodConfig(RegressionConfig, SetOptions):
    """The probe is logistic regression on cached features, as linear-probe's default is."""


class FinetuneOodConfig(FinetuneConfig, SetOptions):
    """The classifier is fine-tuned as `finetune` does."""
