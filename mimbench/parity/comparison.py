"""`mimbench parity`: the official implementation's numbers against this one's, on the same weights and inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from mimbench.contract import Golden, Method, ModelSetup, OfficialCode
from mimbench.errors import InputError
from mimbench.harness.planning.build import build
from mimbench.parity.golden import setup_of
from mimbench.parity.replay import Step, Trajectory, run_step, run_trajectory
from mimbench.parity.weights import Placed, group_weights, load_weights

LOSS, NORM, OUTPUT = 5e-7, 1e-5, 1e-5
"""Largest relative errors in single precision."""
DOUBLE_LOSS, DOUBLE_NORM = 1e-7, 1e-6
"""In double precision. What remains is the rounding of tables that official code computes in single precision."""
STEPS_LOSS, STEPS_STATE = 2e-6, 1e-4
"""Of the losses of a trajectory, and of weights after it: a first step of Adam is the gradient's sign, also if the
gradient is rounding noise."""
SHARE, LEAST = 1e-5, 1e-6
"""Of each element of a gradient: this share of the tensor's largest value, and at least this error."""
ROUNDING = 2.0
"""In single precision: so many times the official code's own rounding error, if the file gives it and it is larger.
Networks with ReLU behind batch norms amplify rounding: two correct codes go different ways within a few steps."""
MOST_ROUNDING = 5e-3
"""No more than this is allowed for a loss, and twice it for weights. SparK's ResNet reaches 1.6e-3 and 4.9e-3."""
_GROUPS = ("out/", "aux/", "after/", "ema/", "buffer_after/")
"""Groups of quantities that a replay may give."""
_STEPS, _DOUBLE = "traj/", "traj/f64/"
"""Where weights after several steps are, in single and in double precision."""


@dataclass(frozen=True)
class Row:
    """One compared quantity. `error` is relative, over the whole tensor."""

    quantity: str
    error: float
    allowed: str
    passed: bool


@dataclass(frozen=True)
class Comparison:
    rows: list[Row]
    skipped: dict[str, str]
    """Arrays that were not compared -> why; "" if nobody says."""


def compare(golden: Golden) -> Comparison:
    """Every number that the file holds, against what mimbench computes.

    Raises:
        InputError: the file lacks something, or its weights do not fit the model that its meta describes.
    """
    setup, code = setup_of(golden)
    try:
        return _compare_variants(golden, setup, code)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"golden file {golden.path} lacks what {setup.method!r} is compared with ({type(error).__name__}: {error})"
        ) from error


def _compare_variants(golden: Golden, setup: ModelSetup, code: OfficialCode) -> Comparison:
    result = _compare(golden, setup, code)
    for start, options in code.variants.items():
        if golden.group(start):
            other = replace(setup, method_options=setup.method_options | dict(options))
            rows = _compare(_variant(golden, start), other, code).rows
            result.rows.extend(replace(row, quantity=f"{start}{row.quantity}") for row in rows)
    return result


def _compare(golden: Golden, setup: ModelSetup, code: OfficialCode) -> Comparison:
    method = build(setup)
    code.complete(golden, method)
    return _Comparing(golden, code, method, load_weights(golden, code, method)).compare_all()


def _variant(golden: Golden, start: str) -> Golden:
    """The file as if the group `start` were its `out/` and `grad/`."""
    arrays = {name: value for name, value in golden.arrays.items() if name.startswith(("param/", "input/"))}
    for name, value in golden.group(start).items():
        arrays[name if name.startswith("grad") else f"out/{name}"] = value
    texts = {name.removeprefix(start): value for name, value in golden.texts.items() if name.startswith(start)}
    return replace(golden, arrays=arrays, texts=texts)


@dataclass(frozen=True)
class _Comparing:
    golden: Golden
    code: OfficialCode
    method: Method
    placed: Placed
    """The weights."""
    compared: set[str] = field(default_factory=set)
    """Arrays of weights and gradients that were compared so far."""

    def compare_all(self) -> Comparison:
        single, double = (
            run_step(self.golden, self.code, self.method, dtype) for dtype in (torch.float32, torch.float64)
        )
        rows = [*self._losses(single, double), *self._outputs(single, double), *self._gradients(single, double)]
        rows += self._states(self.code.states, single.state)
        if "traj/loss" in self.golden.arrays:
            rows += self._trajectory()
        return Comparison([self._with_tolerance(row) for row in rows], self._skipped(single))

    def _losses(self, single: Step, double: Step) -> Iterator[Row]:
        yield _row("loss (fp32)", single.outputs["out/loss"], self.golden.tensor("out/loss"), LOSS)
        for step, name, label, allowed in (
            (single, "grad_norm", "fp32", NORM),
            (double, "grad_norm_f64", "fp64", DOUBLE_NORM),
        ):
            if name in self.golden.arrays:
                yield _row(f"gradient norm ({label})", step.norm, self.golden.tensor(name), allowed)

    def _outputs(self, single: Step, double: Step) -> Iterator[Row]:
        for name in self._names_of_outputs():
            step, ours = (double, name.removesuffix("_f64")) if name.endswith("_f64") else (single, name)
            official = self.golden.tensor(name)
            value = step.outputs.get(ours)
            if value is None and name.startswith("out/") and not self._reason(name):
                raise InputError(f"golden file {self.golden.path}: {self.method.name!r} gives no {name!r}")
            if value is None:
                continue
            if value.numel() != official.numel():
                raise InputError(
                    f"golden file {self.golden.path}: {name!r} is shaped {list(official.shape)} there, and "
                    f"{list(value.shape)} here"
                )
            label = "loss (fp64)" if name == "out/loss_f64" else f"output {name.removeprefix('out/')}"
            allowed = (DOUBLE_LOSS if name.endswith("_f64") else LOSS) if "loss" in name else OUTPUT
            yield _row(label, value.reshape(official.shape), official, allowed)

    def _names_of_outputs(self) -> list[str]:
        return [name for name in self.golden.arrays if name.startswith(_GROUPS) and name != "out/loss"]

    def _gradients(self, single: Step, double: Step) -> Iterator[Row]:
        trained = f"param/{self.code.trained}"
        official = self._weights("grad/", trained)
        least = max(LEAST, ROUNDING * float(self.golden.meta.get("max_abs_grad_f32_vs_f64", 0.0)))
        for name, value in official.state.items():
            ours = single.gradients.get(name, torch.zeros_like(value))
            sources = [key.removeprefix(trained) for key in official.sources[name]]
            allowed = SHARE * float(value.abs().max()) + least
            passed = float((ours.double() - value.double()).abs().max()) <= allowed
            yield Row(f"gradient {' + '.join(sources)}", _relative(ours, value), f"each within {allowed:.1g}", passed)
        for step, ending in ((single, ""), (double, "_f64")):
            if f"grad_norm_each{ending}" in self.golden.arrays:
                yield self._norms(step, ending)

    def _norms(self, step: Step, ending: str) -> Row:
        """The norm of every parameter's gradient; parameters that the other code holds as one are combined."""
        names = [f"param/{self.code.trained}{name}" for name in self.golden.texts["grad_norm_names"]]
        official = dict(zip(names, self.golden.tensor(f"grad_norm_each{ending}").double().tolist(), strict=True))
        # In the gradient's precision, as the files have them: large tensors lose digits there.
        ours: dict[tuple[str, ...], float] = {}
        for name, gradient in step.gradients.items():
            keys = self.placed.sources.get(name, (name,))
            ours[keys] = (ours.get(keys, 0.0) ** 2 + float(gradient.norm()) ** 2) ** 0.5
        theirs = {keys: sum(official.get(key, 0.0) ** 2 for key in keys) ** 0.5 for keys in ours}
        theirs |= {(name,): norm for name, norm in official.items() if not any(name in keys for keys in ours)}
        excess = {keys: abs(ours.get(keys, 0.0) - norm) - (LEAST + SHARE * norm) for keys, norm in theirs.items()}
        worst = max(theirs, key=lambda keys: abs(ours.get(keys, 0.0) - theirs[keys]) / (theirs[keys] + LEAST / SHARE))
        error = abs(ours.get(worst, 0.0) - theirs[worst]) / (theirs[worst] or 1.0)
        named = " + ".join(key.removeprefix("param/") for key in worst)
        label = f"norms of {len(theirs)} gradients{' (fp64)' if ending else ''}, worst: {named}"
        return Row(label, error, f"{SHARE:g} of it + {LEAST:g}", max(excess.values()) <= 0)

    def _states(self, groups: Mapping[str, str], state: Mapping[str, Tensor], allowed: float = OUTPUT) -> Iterator[Row]:
        """Weights after an update. groups: beginnings of their names -> those of the weights before it."""
        for start, weights in groups.items():
            official = self._weights(start, weights).state
            if not official:
                continue
            errors = {name: _relative(state[name], value) for name, value in official.items()}
            worst = max(errors, key=lambda name: errors[name])
            label = f"{start}: {len(errors)} tensors, worst: {worst}"
            yield Row(label, errors[worst], f"{allowed:g}", errors[worst] <= allowed)

    def _trajectory(self) -> Iterator[Row]:
        double = "traj/loss_f64" in self.golden.arrays
        for dtype, ending in ((torch.float32, ""), *(((torch.float64, "_f64"),) if double else ())):
            run: Trajectory = run_trajectory(self.golden, self.code, self.method, dtype)
            official = self.golden.tensor(f"traj/loss{ending}")
            exact = self.golden.tensor("traj/loss_f64") if double else official
            for step, (ours, theirs) in enumerate(zip(run.losses, official, strict=True), 1):
                allowed = max(
                    LOSS if ending else STEPS_LOSS, min(ROUNDING * _relative(theirs, exact[step - 1]), MOST_ROUNDING)
                )
                yield _row(f"step {step}: loss ({str(dtype).removeprefix('torch.')})", ours, theirs, allowed)
            states = _in_double(self.code.trajectory_states) if ending else self.code.trajectory_states
            yield from self._states(states, run.state, OUTPUT if ending else self._allowed_states())
            if not ending:
                self.compared.update(run.outputs)
                for name, value in run.outputs.items():
                    yield _row(name, value, self.golden.tensor(name).reshape(value.shape), STEPS_STATE)

    def _allowed_states(self) -> float:
        """Of weights after the steps in single precision."""
        errors = [
            _relative(value, self.golden.arrays[exact])
            for start in self.code.trajectory_states
            for name, value in self.golden.arrays.items()
            if name.startswith(start) and (exact := f"{_DOUBLE}{name.removeprefix(_STEPS)}") in self.golden.arrays
        ]
        return max([STEPS_STATE, *(min(ROUNDING * error, 2 * MOST_ROUNDING) for error in errors)])

    def _skipped(self, single: Step) -> dict[str, str]:
        """The arrays that are neither compared nor what the model sees."""
        inputs = ("input/", *self.code.networks, *self.code.followed, *self.code.variants)
        compared = {"out/loss", "grad_norm", "grad_norm_f64", "grad_norm_each", "grad_norm_each_f64"}
        compared |= {name for name in self._names_of_outputs() if name.removesuffix("_f64") in single.outputs}
        compared |= {"traj/loss", "traj/loss_f64", "traj/lr", "traj/wd"} | self.compared
        left = [name for name in self.golden.arrays if name not in compared and not name.startswith(inputs)]
        return {name: self._reason(name) for name in left}

    def _weights(self, start: str, weights: str) -> Placed:
        """A group of weights or gradients by our names, noted as compared."""
        placed = group_weights(self.golden, self.code, self.method, start, weights)
        keys = {key for sources in placed.sources.values() for key in sources}
        self.compared.update(start + key.removeprefix(weights) for key in keys)
        return placed

    def _reason(self, name: str) -> str:
        patterns = self.code.not_compared
        if not self.golden.arrays[name].is_floating_point():
            return next((why for pattern, why in patterns.items() if fnmatchcase(name, pattern)), "whole numbers")
        return next((why for pattern, why in patterns.items() if fnmatchcase(name, pattern)), "")

    def _with_tolerance(self, row: Row) -> Row:
        """The row, judged by the method's own tolerance if it has one for this quantity."""
        patterns = self.code.tolerances
        allowed = next((value for pattern, value in patterns.items() if fnmatchcase(row.quantity, pattern)), None)
        return row if allowed is None else replace(row, allowed=f"{allowed:g}", passed=row.error <= allowed)


def _in_double(groups: Mapping[str, str]) -> dict[str, str]:
    """Groups of weights after several steps, in double precision."""
    return {start.replace(_STEPS, _DOUBLE, 1): weights for start, weights in groups.items()}


def _row(quantity: str, ours: Tensor, official: Tensor, allowed: float) -> Row:
    error = _relative(ours, official)
    return Row(quantity, error, f"{allowed:g}", error <= allowed)


def _relative(ours: Tensor, official: Tensor) -> float:
    """|ours - official| / |official|, L2 over the whole tensor; infinite if anything is not finite."""
    size = official.double().norm()
    error = (ours.double() - official.double()).norm() / (size if size > 0 else 1.0)
    return float(error) if bool(torch.isfinite(error)) else float("inf")
