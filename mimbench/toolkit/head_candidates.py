"""Heads that compete: each with a learning rate and weight decay of its own, chosen on held-out training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimbench.contract import ImageSplit, RunError
from mimbench.data.pipeline.subsets import held_out_indices, subset


@dataclass(frozen=True)
class Candidate:
    """A head and the options that it is trained with."""

    kind: str
    """Which head it is. Candidates of one kind differ in their options only, and start from the same weights."""
    reads: str
    """The name of its input."""
    rate: float
    """Base learning rate; it is scaled by the batch size as `train.base_lr` is."""
    weight_decay: float | None = None
    """Constant weight decay; None: that of the training, with its schedule."""

    @property
    def label(self) -> str:
        """Such as "ep, rate 0.001, weight decay 0.05"."""
        decay = "" if self.weight_decay is None else f", weight decay {self.weight_decay:g}"
        return f"{self.kind}, rate {self.rate:g}{decay}"


def make_candidates(
    kinds: Mapping[str, str], rates: Sequence[float], weight_decays: Sequence[float] = ()
) -> tuple[Candidate, ...]:
    """Every kind of head with every rate and weight decay.

    Args:
        kinds: kind -> name of the input that it reads.
        rates: base learning rates.
        weight_decays: (): one candidate per rate, with the weight decay of the training.
    """
    decays: Sequence[float | None] = weight_decays or (None,)
    return tuple(
        Candidate(kind, reads, rate, decay) for kind, reads in kinds.items() for rate in rates for decay in decays
    )


def needs_choice(candidates: Sequence[Candidate], competing: Sequence[str]) -> bool:
    """Whether images have to be held out: a kind has several candidates, or several kinds compete.

    Args:
        competing: the kinds among which the best is chosen.
    """
    return len({one.kind for one in candidates}) < len(candidates) or len(competing) > 1


def count_fitted(images: int, fraction: float, *, holds_out: bool) -> int:
    """Number of training images that are left for the training, of `images`."""
    return images - min(max(1, round(images * fraction)), images - 1) if holds_out else images


def hold_out_images(
    split: ImageSplit, fraction: float, seed: int, *, holds_out: bool
) -> tuple[ImageSplit, ImageSplit | None]:
    """The images to train on, and those to choose on, with every class in proportion; None if none is held out."""
    if not holds_out:
        return split, None
    indices = held_out_indices(split.labels.numpy(), fraction, seed, "the train split")
    return subset(split, indices["train"].tolist()), subset(split, indices["test"].tolist())


@dataclass(frozen=True)
class Choice:
    """What held-out training images say of the candidates."""

    held_out: Mapping[Candidate, float]
    """Accuracy on the held-out images, percent, of the candidates that have not diverged; empty if none was held
    out."""
    images: int
    """Number of held-out images; 0 if there was nothing to choose."""
    by_kind: Mapping[str, Candidate]
    """The best of each kind; of equal ones the first. A kind is missing if all of its candidates diverged."""
    best: str
    """Kind of the best of those that compete; of equal ones the first."""
    diverged: tuple[Candidate, ...]
    """Candidates that diverged in training. None of them is chosen."""

    def details(self) -> dict[str, Any]:
        """The choice as plain JSON data, for `TaskResult.details`."""
        chosen: dict[str, dict[str, float]] = {}
        for kind, one in self.by_kind.items():
            chosen[kind] = {"rate": one.rate}
            if one.weight_decay is not None:
                chosen[kind]["weight_decay"] = one.weight_decay
            if one in self.held_out:
                chosen[kind]["held_out_top1"] = self.held_out[one]
        return {
            "best_head": self.best,
            "chosen": chosen,
            "held_out_top1": {one.label: value for one, value in self.held_out.items()},
            "held_out_images": self.images,
            "diverged": [one.label for one in self.diverged],
        }


def choose(
    candidates: Sequence[Candidate], held_out: Mapping[Candidate, float], images: int, competing: Sequence[str]
) -> Choice:
    """The best candidate of each kind and of all, by their accuracy on held-out images.

    Args:
        candidates: all of them, in order.
        held_out: accuracies of those that have not diverged, percent; empty if nothing was held out.
        images: number of held-out images.
        competing: the kinds among which the best is chosen.

    Raises:
        RunError: all candidates that compete have diverged.
    """
    finite = [one for one in candidates if one in held_out] if images else list(candidates)
    by_kind: dict[str, Candidate] = {}
    for one in finite:
        best = by_kind.setdefault(one.kind, one)
        if held_out.get(one, 0.0) > held_out.get(best, 0.0):
            by_kind[one.kind] = one
    left = [kind for kind in competing if kind in by_kind]
    if not left:
        raise RunError(f"{', '.join(competing)}: diverged with every learning rate; lower task.rates")
    best_kind = max(left, key=lambda kind: held_out.get(by_kind[kind], 0.0))
    diverged = tuple(one for one in candidates if one not in finite)
    return Choice(held_out, images, by_kind, best_kind, diverged)
