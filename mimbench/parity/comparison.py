"""`mimbench parity`: the official implementation's numbers against this one's, on the same weights and inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimbench.contract import Encoder, Features, Method, ModelSetup
from mimbench.convert import recognise, to_method
from mimbench.convert.apply import ConvertedWeights
from mimbench.convert.key_layouts import KeyLayout
from mimbench.errors import InputError
from mimbench.harness.planning.build import build
from mimbench.parity.golden import Golden, setup_of

LOSS, NORM, OUTPUT = 5e-7, 1e-5, 1e-5
"""Largest relative errors."""
RTOL, ATOL = 1e-5, 1e-6
"""Of each element of a gradient, and of each parameter's gradient norm."""


@dataclass(frozen=True)
class Row:
    """One compared quantity. `error` is relative, over the whole tensor."""

    quantity: str
    error: float
    allowed: str
    passed: bool


@dataclass
class Run:
    """One forward and backward pass of this implementation."""

    loss: Tensor
    prediction: Tensor
    encoded: Tensor
    """What the encoder gave: the last map, or the visible tokens in the order of `keep`."""
    keep: Tensor | None
    gradients: dict[str, Tensor] = field(default_factory=dict)

    @property
    def norm(self) -> Tensor:
        return torch.linalg.vector_norm(torch.stack([gradient.double().norm() for gradient in self.gradients.values()]))


def compare(golden: Golden) -> list[Row]:
    """Every number that the file holds, against what mimbench computes.

    Raises:
        InputError: the file lacks something, or its weights do not fit the model that its meta describes.
    """
    setup, official = setup_of(golden), golden.group("param")
    layout = recognise(official)
    method = build(setup)
    loaded = to_method(official, layout, method)
    _load(method, loaded, golden.path)
    single, double = (run(golden, method.to(dtype)) for dtype in (torch.float32, torch.float64))
    rows = [*_losses(golden, single, double), *_outputs(golden, setup, single)]
    return [*rows, *_gradients(golden, method, layout, loaded, single)]


def run(golden: Golden, method: Method) -> Run:
    """One step on the stored images and mask, in the precision that `method` has."""
    images = golden.tensor("input/image").to(next(method.parameters()).dtype)
    mask = _mask(golden, len(images))
    if "input/token_ids" in golden.arrays:
        target = golden.tensor("input/token_ids").view(len(images), *method.encoder.grid)
    else:
        with torch.no_grad():
            target = method.target(images)
    method.zero_grad(set_to_none=True)
    encoded: list[tuple[Tensor, Tensor | None]] = []
    with _watched(method.encoder, encoded):
        prediction = method.predict(images, mask)
    loss = method.loss(prediction, target, mask)
    loss.backward()
    output, keep = encoded[-1]
    gradients = {name: value.grad.clone() for name, value in method.named_parameters() if value.grad is not None}
    return Run(loss.detach(), prediction.detach(), output.detach(), keep, gradients)


class _watched:
    """While active, record what `forward_tokens` of the encoder returns, with its `keep`.

    This is the map [B, D, h, w], or the sequence [B, P + K, D] of a run on visible patches only.
    """

    def __init__(self, encoder: Encoder, notes: list[tuple[Tensor, Tensor | None]]) -> None:
        self.encoder, self.notes = encoder, notes

    def __enter__(self) -> None:
        encoder, notes = self.encoder, self.notes
        forward_tokens = encoder.forward_tokens

        def forward_and_note(tokens: Tensor, keep: Tensor | None = None) -> Features:
            features = forward_tokens(tokens, keep)
            notes.append((features.dense if keep is None else features.sequence, keep))
            return features

        vars(encoder).update(forward_tokens=forward_and_note)

    def __exit__(self, *_: Any) -> None:
        del vars(self.encoder)["forward_tokens"]


def _mask(golden: Golden, batch: int) -> Tensor:
    """bool [B, Gh, Gw]; stored as [B, Gh, Gw], or flat over a square grid."""
    mask = golden.tensor("input/mask").bool()
    if mask.ndim == 2 and isqrt(mask.shape[1]) ** 2 == mask.shape[1]:
        mask = mask.view(batch, isqrt(mask.shape[1]), -1)
    if mask.ndim != 3 or len(mask) != batch:
        raise InputError(f"golden file {golden.path}: its mask is shaped {list(mask.shape)}, not one grid per image")
    return mask


def _load(method: Method, loaded: ConvertedWeights, path: Path) -> None:
    trained = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    missing = sorted(trained & set(loaded.missing))
    if missing:
        why = next((reason for reason in loaded.left_out.values() if "as a whole" in reason), "the file lacks it")
        raise InputError(f"golden file {path} gives no {missing[0]!r}: {why}")
    method.load_state_dict(loaded.state, strict=False)


def _losses(golden: Golden, single: Run, double: Run) -> Iterator[Row]:
    yield _scalar("loss (fp32)", single.loss, golden.tensor("out/loss"), LOSS)
    if "out/loss_f64" in golden.arrays:
        yield _scalar("loss (fp64)", double.loss, golden.tensor("out/loss_f64"), LOSS)
    if "grad_norm" in golden.arrays:
        yield _scalar("gradient norm (fp32)", single.norm, golden.tensor("grad_norm"), NORM)
    if "grad_norm_f64" in golden.arrays:
        yield _scalar("gradient norm (fp64)", double.norm, golden.tensor("grad_norm_f64"), NORM)


def _outputs(golden: Golden, setup: ModelSetup, run: Run) -> Iterator[Row]:
    for name, official in golden.group("out").items():
        if name in ("loss", "loss_f64"):
            continue
        ours = _output(name, golden, run)
        if ours is None or ours.numel() != official.numel():
            raise InputError(f"golden file {golden.path}: {setup.method!r} gives nothing shaped as 'out/{name}'")
        error = _relative(ours.reshape(official.shape), official)
        yield Row(f"output {name}", error, f"{OUTPUT:g}", error <= OUTPUT)


def _output(name: str, golden: Golden, run: Run) -> Tensor | None:
    """This implementation's counterpart of the stored output `name`; `logits` are of masked patches only."""
    if name in ("x_rec", "pred", "logits_all", "prediction"):
        return run.prediction
    if name in ("z", "latent"):
        return run.encoded if run.keep is None else _in_order(run.encoded, run.keep, golden.tensor("input/ids_keep"))
    if name in ("logits", "mlm_acc"):
        masked = run.prediction.flatten(0, -2)[_mask(golden, len(run.prediction)).flatten()]
        if name == "logits":
            return masked
        return (masked.argmax(-1) == golden.tensor("input/labels")).float().mean()
    return None


def _in_order(encoded: Tensor, ours: Tensor, official: Tensor) -> Tensor:
    """Visible tokens [B, P + K, D] in the order `ours`, rearranged into the order `official`, both [B, K]."""
    prefix = encoded.shape[1] - ours.shape[1]
    order = ours.argsort(1).gather(1, official.argsort(1).argsort(1)).unsqueeze(-1)
    patches = encoded[:, prefix:].gather(1, order.expand(-1, -1, encoded.shape[-1]))
    return torch.cat((encoded[:, :prefix], patches), 1)


def _gradients(golden: Golden, method: Method, layout: KeyLayout, loaded: ConvertedWeights, run: Run) -> Iterator[Row]:
    stored = golden.group("grad")
    # Gradients are renamed and reordered exactly as weights are; a gradient that is not stored counts as zeros.
    state = {name: stored.get(name, torch.zeros_like(value)) for name, value in golden.group("param").items()}
    unknown = sorted(set(stored) - set(state))
    if unknown:
        raise InputError(f"golden file {golden.path}: gradient of {unknown[0]!r}, which is no parameter there")
    official = to_method(state, layout, method).state
    for name, sources in loaded.sources.items():
        if set(sources) <= set(stored):
            ours = run.gradients.get(name, torch.zeros_like(official[name]))
            close = torch.allclose(ours.double(), official[name].double(), rtol=RTOL, atol=ATOL)
            error = _relative(ours, official[name])
            yield Row(f"gradient {' + '.join(sources)}", error, f"rtol {RTOL:g}, atol {ATOL:g}", close)
    if "grad_norm_names" in golden.arrays:
        yield _norms(golden, loaded.sources, run)


def _norms(golden: Golden, sources: Mapping[str, tuple[str, ...]], run: Run) -> Row:
    """The norm of every parameter's gradient; parameters that the other code holds as one are combined."""
    names = [str(name) for name in golden.arrays["grad_norm_names"]]
    official = dict(zip(names, golden.tensor("grad_norm_each").double().tolist(), strict=True))
    # In single precision, as the files have them: large tensors lose digits there.
    ours: dict[tuple[str, ...], float] = {}
    for name, gradient in run.gradients.items():
        keys = sources.get(name, (name,))
        ours[keys] = (ours.get(keys, 0.0) ** 2 + float(gradient.norm()) ** 2) ** 0.5
    theirs = {keys: sum(official.get(key, 0.0) ** 2 for key in keys) ** 0.5 for keys in ours}
    theirs |= {(name,): norm for name, norm in official.items() if not any(name in keys for keys in ours)}
    excess = {keys: abs(ours.get(keys, 0.0) - norm) - (ATOL + RTOL * norm) for keys, norm in theirs.items()}
    worst = max(theirs, key=lambda keys: abs(ours.get(keys, 0.0) - theirs[keys]) / (theirs[keys] + ATOL / RTOL))
    error = abs(ours.get(worst, 0.0) - theirs[worst]) / (theirs[worst] or 1.0)
    label = f"norms of {len(theirs)} gradients, worst: {' + '.join(worst)}"
    return Row(label, error, f"rtol {RTOL:g}, atol {ATOL:g}", max(excess.values()) <= 0)


def _scalar(quantity: str, ours: Tensor, official: Tensor, allowed: float) -> Row:
    error = _relative(ours, official)
    return Row(quantity, error, f"{allowed:g}", error <= allowed)


def _relative(ours: Tensor, official: Tensor) -> float:
    """|ours - official| / |official|, L2 over the whole tensor; infinite if anything is not finite."""
    size = official.double().norm()
    error = (ours.double() - official.double()).norm() / (size if size > 0 else 1.0)
    return float(error) if bool(torch.isfinite(error)) else float("inf")
