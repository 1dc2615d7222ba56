"""scikit-learn's logistic regression in torch: on a GPU, for several regularisation values at once, in parts of rows.

The objective and the optimizer (SciPy's L-BFGS-B) are scikit-learn's, so that results agree up to rounding. What torch
computes is the loss and its gradient, which takes nearly all of the time. One pass over the features serves all
regularisation values. Features that do not fit on the device are moved there part by part, in each pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LOGITS = 2**26
"""Logits that are computed at once; with as many rows."""
ROWS = 2**16
"""Rows that are moved to the device at once, at most."""
SHARE = 0.5
"""Share of the device's free memory that features may take."""


@dataclass(frozen=True)
class LinearClassifier:
    """A fitted regression, with the methods of scikit-learn's classifiers."""

    classes_: np.ndarray
    mean: np.ndarray
    """Of the features, float32 [D], as `scale`, their standard deviation."""
    scale: np.ndarray
    weight: np.ndarray
    """float32 [classes, D], for standardised features; [1, D] of the second one of two classes."""
    bias: np.ndarray
    converged: bool
    device: torch.device

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Features [N, D] -> probabilities float64 [N, classes]."""
        return torch.cat([logits.double().softmax(1).cpu() for logits in self._logits(x)]).numpy()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Features [N, D] -> the most probable class of each, [N]."""
        return self.classes_[torch.cat([logits.argmax(1).cpu() for logits in self._logits(x)]).numpy()]

    def score(self, x: np.ndarray, y: np.ndarray) -> float:
        """Accuracy, 0 to 1."""
        return float(np.mean(self.predict(x) == y))

    @torch.no_grad()
    def _logits(self, x: np.ndarray) -> Iterator[Tensor]:
        weight, bias = (torch.from_numpy(values).to(self.device) for values in (self.weight, self.bias))
        rows = _Rows(x, None, self.mean, self.scale, self.device, len(weight))
        for _, part in rows:
            logits = part @ weight.T + bias
            yield logits if len(weight) > 1 else torch.cat((torch.zeros_like(logits), logits), 1)


def fit_in_torch(
    x: np.ndarray,
    y: np.ndarray,
    strengths: Sequence[float],
    iterations: int,
    device: torch.device,
    *,
    rows: np.ndarray | None = None,
    is_scaled: bool = False,
    tolerance: float = 1e-3,
) -> list[LinearClassifier]:
    """Fit one classifier for each regularisation value, all of them together.

    Args:
        x: features [N, D], which may be a memory map.
        y: labels [N], of two or more classes.
        strengths: values of scikit-learn's C.
        iterations: of the optimizer, at most.
        device: computes in float32.
        rows: sorted indices of the rows to fit, int [n]; None takes all.
        is_scaled: the features are standardised already.
        tolerance: scikit-learn's tol: the largest component of the gradient at which a fit is done.
    """
    mean, scale = _moments(x, rows, is_scaled)
    classes, targets = np.unique(y if rows is None else y[rows], return_inverse=True)
    outputs = len(classes) if len(classes) > 2 else 1
    objective = _Objective(
        _Rows(x, rows, mean, scale, device, outputs * len(strengths)),
        torch.from_numpy(targets).to(device),
        outputs,
        penalties=[1 / (strength * len(targets)) for strength in strengths],
    )
    results = _minimise_together(
        objective,
        [np.zeros(outputs * (x.shape[1] + 1))] * len(strengths),
        # Those of scikit-learn's lbfgs solver.
        {"maxiter": iterations, "maxls": 50, "gtol": tolerance, "ftol": 64 * np.finfo(float).eps},
    )
    fitted = []
    for result in results:
        parameters = result.x.reshape(outputs, -1).astype(np.float32)
        weight, bias = np.ascontiguousarray(parameters[:, :-1]), parameters[:, -1].copy()
        fitted.append(LinearClassifier(classes, mean, scale, weight, bias, result.nit < iterations, device))
    return fitted


def _moments(x: np.ndarray, rows: np.ndarray | None, is_scaled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale that standardise the features, as scikit-learn's StandardScaler finds them."""
    if is_scaled:
        return np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32)
    from sklearn.preprocessing import StandardScaler  # takes a second to import

    scaler = StandardScaler()
    for start in range(0, len(x) if rows is None else len(rows), ROWS):
        part = slice(start, start + ROWS)
        scaler.partial_fit(x[part] if rows is None else x[rows[part]])
    return scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32)


class _Rows:
    """Standardised rows of features on a device, in parts: (slice, float32 [n, D])."""

    def __init__(
        self,
        x: np.ndarray,
        rows: np.ndarray | None,
        mean: np.ndarray,
        scale: np.ndarray,
        device: torch.device,
        outputs: int,
    ) -> None:
        """outputs: number of logits of a row, which limits the size of the parts."""
        self.x, self.rows, self.device = x, rows, device
        self.mean, self.scale = (torch.from_numpy(values).to(device) for values in (mean, scale))
        self.count = len(x) if rows is None else len(rows)
        self.size = max(1, min(ROWS, LOGITS // outputs))
        keeps = self.count * x.shape[1] * 4 <= SHARE * _free_memory(device)
        self._parts = list(self._moved()) if keeps else None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        return self._moved() if self._parts is None else iter(self._parts)

    def _moved(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, self.count, self.size):
            place = slice(start, min(start + self.size, self.count))
            part = np.asarray(self.x[place] if self.rows is None else self.x[self.rows[place]], np.float32)
            yield place, (torch.from_numpy(part.copy()).to(self.device) - self.mean) / self.scale


def _free_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"  # macOS has the latter only
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


class _Objective:
    """The mean loss over all rows plus a penalty of the weights, not of the biases, for several penalties."""

    def __init__(self, rows: _Rows, targets: Tensor, outputs: int, penalties: Sequence[float]) -> None:
        """targets: int64 [N]. outputs: logits of a row: one per class, or 1 for the second of two classes."""
        self.rows, self.targets, self.outputs, self.penalties = rows, targets, outputs, list(penalties)

    @torch.no_grad()
    def __call__(self, indices: Sequence[int], points: Sequence[np.ndarray]) -> list[tuple[float, np.ndarray]]:
        """Value and gradient at a point of each of some penalties, which `indices` names."""
        device, runs = self.rows.device, len(points)
        parameters = torch.from_numpy(np.stack(points)).view(runs, self.outputs, -1)
        flat = parameters.float().to(device).flatten(0, 1)
        weight, bias = flat[:, :-1].contiguous(), flat[:, -1]
        losses = torch.zeros(runs, dtype=torch.float64, device=device)
        gradient = torch.zeros(flat.shape, dtype=torch.float64, device=device)
        for place, x in self.rows:
            logits = (x @ weight.T + bias).view(len(x), runs, self.outputs)
            loss, slope = self._loss(logits, self.targets[place])
            losses += loss.double().sum(0)
            slope = slope.flatten(1)
            gradient[:, :-1] += (slope.T @ x).double()
            gradient[:, -1] += slope.double().sum(0)
        count = self.rows.count
        penalties = torch.tensor([self.penalties[index] for index in indices], dtype=torch.float64)
        weights = parameters[..., :-1]
        values = losses.cpu() / count + 0.5 * penalties * weights.square().sum((1, 2))
        slopes = gradient.cpu().view(parameters.shape) / count
        slopes[..., :-1] += penalties[:, None, None] * weights
        return [(float(value), one.flatten().numpy()) for value, one in zip(values, slopes, strict=True)]

    def _loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy [n, runs] of logits [n, runs, outputs], and its gradient for each logit."""
        if self.outputs == 1:
            is_second = targets.to(logits.dtype)[:, None, None]
            loss = F.softplus(logits) - is_second * logits
            return loss.squeeze(2), logits.sigmoid() - is_second
        index = targets[:, None, None].expand(-1, logits.shape[1], 1)
        log_probabilities = logits.log_softmax(2)
        loss = -log_probabilities.gather(2, index).squeeze(2)
        return loss, log_probabilities.exp_().scatter_add_(2, index, -torch.ones_like(index, dtype=logits.dtype))


def _minimise_together(
    objective: Callable[[Sequence[int], Sequence[np.ndarray]], list[tuple[float, np.ndarray]]],
    starts: Sequence[np.ndarray],
    options: dict[str, Any],
) -> list[Any]:
    """SciPy's L-BFGS-B from each start. The points of all that are still running are evaluated in one call."""
    from scipy.optimize import minimize

    questions: SimpleQueue[tuple[int, np.ndarray, Future] | None] = SimpleQueue()

    def run(index: int) -> Any:
        def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
            answer: Future[tuple[float, np.ndarray]] = Future()
            questions.put((index, point.copy(), answer))
            return answer.result()

        try:
            return minimize(evaluate, starts[index], method="L-BFGS-B", jac=True, options=options)
        finally:
            questions.put(None)

    waiting: list[tuple[int, np.ndarray, Future]] = []
    with ThreadPoolExecutor(len(starts)) as threads:
        results = [threads.submit(run, index) for index in range(len(starts))]
        running = len(starts)
        try:
            while running:
                while len(waiting) < running:
                    if question := questions.get():
                        waiting.append(question)
                    else:
                        running -= 1
                if waiting:
                    waiting.sort(key=itemgetter(0))
                    values = objective([index for index, _, _ in waiting], [point for _, point, _ in waiting])
                    for (_, _, answer), value in zip(waiting, values, strict=True):
                        answer.set_result(value)
                    waiting.clear()
        except BaseException as error:  # Ctrl-C too: a thread that gets no answer would never end
            while running:
                question = waiting.pop() if waiting else questions.get()
                if question is None:
                    running -= 1
                elif not question[2].done():
                    question[2].set_exception(error)
            raise
    return [result.result() for result in results]
