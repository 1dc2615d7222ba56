"""Heads of the attentive probe: a pooler, a batch normalisation if the head has one, and a linear layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from mimbench_tasks.attentive_probe.poolers import (
    CAEPooling,
    CAPIPooling,
    EfficientPooling,
    MILPooling,
    Pooler,
    VJEPAPooling,
    head_count,
)

HeadName = Literal["ep", "abmilp", "gated_abmilp", "capi", "cae", "vjepa", "mean", "token"]
"""Heads by name. "mean" and "token" do not attend: a linear layer on the mean of the patches, or on the class token."""
HEADS: tuple[HeadName, ...] = get_args(HeadName)
LINEAR: tuple[HeadName, ...] = ("mean", "token")
"""Heads for comparison, which are not chosen as the best."""


@dataclass(frozen=True)
class HeadForm:
    """What is around the pooler, in the official code of a head."""

    norm_eps: float | None
    """Of the batch normalisation before the linear layer; None: there is none."""
    init_std: float | None
    """Standard deviation of the linear layer's initial weights, truncated at +-2, with biases 0; None: torch's own."""


FORMS: Mapping[HeadName, HeadForm] = {
    "ep": HeadForm(1e-6, None),
    "abmilp": HeadForm(1e-6, 0.01),
    "gated_abmilp": HeadForm(1e-6, 0.01),
    "capi": HeadForm(None, 0.02),
    "cae": HeadForm(1e-5, 0.01),
    "vjepa": HeadForm(None, None),
    "mean": HeadForm(1e-6, 0.01),
    "token": HeadForm(1e-6, 0.01),
}


class Head(nn.Module):
    """Tokens [B, N, D], or vectors [B, D] for a linear head, -> logits [B, classes]."""

    def __init__(self, pool: nn.Module, dim: int, classes: int, form: HeadForm) -> None:
        super().__init__()
        self.pool = pool
        # The statistics are not trained: without affine parameters, as all of these probes have it.
        self.norm = nn.Identity() if form.norm_eps is None else nn.BatchNorm1d(dim, form.norm_eps, affine=False)
        self.linear = nn.Linear(dim, classes)
        if form.init_std is not None:
            nn.init.trunc_normal_(self.linear.weight, std=form.init_std)
            nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.norm(self.pool(tokens)))

    def attention(self, tokens: Tensor) -> Tensor | None:
        """Attention maps [B, Q, N]; None if the head does not attend."""
        return self.pool.weights(tokens) if isinstance(self.pool, Pooler) else None


def build_head(name: HeadName, dim: int, classes: int, *, queries: int, batch_norm: bool | None) -> Head:
    """A head with fresh weights from torch's global generator.

    Args:
        dim: channels of what it reads.
        queries: of EP; it divides `dim`.
        batch_norm: whether a batch normalisation comes before the linear layer; None: as in the head's official code.
    """
    poolers: dict[str, Callable[[], nn.Module]] = {
        "ep": lambda: EfficientPooling(dim, queries),
        "abmilp": lambda: MILPooling(dim, gated=False),
        "gated_abmilp": lambda: MILPooling(dim, gated=True),
        "capi": lambda: CAPIPooling(dim, head_count(dim)),
        "cae": lambda: CAEPooling(dim, head_count(dim)),
        "vjepa": lambda: VJEPAPooling(dim, head_count(dim)),
    }
    form = FORMS[name]
    if batch_norm is not None:
        form = HeadForm((form.norm_eps or 1e-6) if batch_norm else None, form.init_std)
    return Head(poolers.get(name, nn.Identity)(), dim, classes, form)
