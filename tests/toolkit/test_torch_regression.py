"""Logistic regression in torch agrees with scikit-learn's, for several regularisation values at once and in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mimbench.contract import InputConfig
from mimbench.data import open_dataset
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.harness.running.features import FrozenFeatures
from mimbench.store.store import Store
from mimbench.toolkit import torch_regression
from mimbench.toolkit.frozen_features import class_probabilities
from mimbench.toolkit.regression import RegressionConfig, fit_regression, fit_standardised, solver_protocol
from mimbench.toolkit.torch_regression import fit_in_torch

CPU = torch.device("cpu")
STRENGTHS = (0.01, 1.0, 10.0)


def clouds(classes, n=120, dim=12, seed=0):
    """Overlapping clouds of points with a constant column, and their labels, some of which may be missing."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, classes, n) * 2
    x = 0.4 * draws.normal(size=(2 * classes, dim))[labels] + draws.normal(size=(n, dim))
    x[:, 3] = 5
    return x.astype(np.float32), labels


def reference(x, y, strength, iterations=500):
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=strength, max_iter=iterations, tol=1e-3).fit(scaler.transform(x), y)
    return model, scaler


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_it_is_scikit_learns_regression(classes):
    x, y = clouds(classes)
    unseen, _ = clouds(classes, seed=1)
    for strength, fitted in zip(STRENGTHS, fit_in_torch(x, y, STRENGTHS, 500, CPU), strict=True):
        model, scaler = reference(x, y, strength)
        assert fitted.classes_.tolist() == model.classes_.tolist()
        assert fitted.converged
        np.testing.assert_allclose(
            fitted.predict_proba(unseen), model.predict_proba(scaler.transform(unseen)), atol=2e-5
        )
        np.testing.assert_array_equal(fitted.predict(unseen), model.predict(scaler.transform(unseen)))
        np.testing.assert_allclose(fitted.weight, model.coef_, atol=1e-4)
        assert fitted.score(x, y) == model.score(scaler.transform(x), y)


def test_rows_of_a_memory_map_are_read_in_parts(tmp_path, monkeypatch):
    x, y = clouds(4)
    np.save(tmp_path / "x.npy", x)
    rows = np.arange(1, len(x), 3)
    expected = fit_in_torch(x[rows], y[rows], STRENGTHS, 500, CPU)
    monkeypatch.setattr(torch_regression, "ROWS", 7)
    for free in (0, 1 << 40):
        monkeypatch.setattr(torch_regression, "_free_memory", lambda device, free=free: free)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        for one, other in zip(expected, fit_in_torch(mapped, y, STRENGTHS, 500, CPU, rows=rows), strict=True):
            np.testing.assert_allclose(one.predict_proba(x), other.predict_proba(mapped), atol=1e-5)
            np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)


def test_several_at_once_are_each_one_alone():
    x, y = clouds(5)
    together = fit_in_torch(x, y, STRENGTHS, 500, CPU)
    for strength, one in zip(STRENGTHS, together, strict=True):
        (alone,) = fit_in_torch(x, y, [strength], 500, CPU)
        np.testing.assert_allclose(one.predict_proba(x), alone.predict_proba(x), atol=1e-5)


def test_too_few_iterations_have_not_converged():
    x, y = clouds(3)
    assert [one.converged for one in fit_in_torch(x, y, STRENGTHS, 2, CPU)] == [False] * 3


def test_an_error_ends_all_of_them(monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch_regression._Objective, "_loss", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit_in_torch(*clouds(3), STRENGTHS, 500, CPU)


def test_standardised_features_stay_as_they_are():
    x, y = clouds(3)
    model = LogisticRegression(C=1.0, max_iter=500, tol=1e-3).fit(x, y)
    for solver in ("torch", "sklearn", "auto"):
        fitted = fit_standardised(x, y, 1.0, 500, solver, CPU)
        np.testing.assert_allclose(fitted.predict_proba(x), model.predict_proba(x), atol=2e-5)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Features and labels of the embedded training images, and of the test images."""
    folder = tmp_path_factory.mktemp("embedded")
    dataset = open_dataset("mnist5k", {}, folder / "cache", "data")
    train, test = dataset.split("train"), dataset.split("test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ViTConfig(patch_size=4, embed_dim=32, depth=1, num_heads=2)
        encoder = ViT(config, image_size=28, in_channels=dataset.channels)
    images = InputConfig(image_size=28, mean=(0.13,), std=(0.31,))
    source = FrozenFeatures(encoder, images, CPU, {}, Store(folder), say=print)
    x, unseen = source(train, "train").numpy(), source(test, "test").numpy()
    return x, train.labels.numpy(), unseen, test.labels.numpy()


def test_on_embedded_features_both_solvers_agree_within_a_tenth_of_a_point(embedded):
    x, y, unseen, labels = embedded
    accuracies, held_out, strengths = {}, {}, {}
    for solver in ("sklearn", "torch"):
        fitted = fit_regression(x, y, RegressionConfig(solver=solver), seed=0)
        scores = class_probabilities(fitted.classifier, unseen, 10)
        accuracies[solver] = 100 * np.mean(scores.argmax(1) == labels)
        held_out[solver], strengths[solver] = fitted.held_out, fitted.strength
        assert fitted.details()["solver"] == solver
    assert accuracies["torch"] == pytest.approx(accuracies["sklearn"], abs=0.1)
    assert accuracies["sklearn"] > 30
    # With C = 10, scikit-learn itself differs by 0.01 from one order of the images to another on these features.
    assert held_out["torch"] == pytest.approx(held_out["sklearn"], abs=0.02)
    for weak in (0.01, 0.1):
        assert held_out["torch"][weak] == pytest.approx(held_out["sklearn"][weak], abs=0.001)
    # So its best C may be tied with another one; the one that torch chooses is within that noise of the best.
    assert held_out["sklearn"][strengths["torch"]] == pytest.approx(max(held_out["sklearn"].values()), abs=0.01)


def test_both_solvers_choose_the_same_value_where_fits_reach_the_optimum(embedded):
    x, y, *_ = embedded
    chosen = {}
    for solver in ("sklearn", "torch"):
        config = RegressionConfig(solver=solver, inverse_regularisation=(0.1, 0.001, 0.01))
        fitted = fit_regression(x, y, config, seed=0)
        best, second, _ = sorted(fitted.held_out.values(), reverse=True)
        assert best - second > 0.01
        chosen[solver] = fitted.strength
    assert chosen["torch"] == chosen["sklearn"]


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_at_the_optimum_both_solvers_agree_within_a_tenth_of_a_point(embedded, strength):
    x, y, unseen, labels = embedded
    accuracies = []
    for solver in ("sklearn", "torch"):
        config = RegressionConfig(
            solver=solver, inverse_regularisation=(strength,), tolerance=1e-5, max_iterations=5000
        )
        fitted = fit_regression(x[:1500], y[:1500], config, seed=0)
        assert fitted.converged
        accuracies.append(100 * fitted.classifier.score(unseen, labels))
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.1 + 1e-9)


def test_a_tolerance_is_a_departure_only_if_it_is_not_the_default():
    assert "tolerance" not in RegressionConfig().shaping()
    assert RegressionConfig(tolerance=1e-5).shaping()["tolerance"] == 1e-5
    assert "tolerance" not in RegressionConfig(tolerance=1e-3).shaping()


def test_the_protocol_names_a_solver_that_is_not_the_reference():
    cuda = torch.device("cuda")
    choices = [(choice, device) for choice in ("auto", "sklearn", "torch") for device in (CPU, cuda)]
    named = [solver_protocol(choice, device) for choice, device in choices]
    assert named == [{}, {"solver": "torch"}, {}, {}, {"solver": "torch"}, {"solver": "torch"}]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_fit_ends(error):
    calls = []

    def objective(indices, points):
        calls.append(list(indices))
        if len(calls) == 2:
            raise error
        return [(float(point @ point), 2 * point) for point in points]

    with pytest.raises(error):
        torch_regression._minimise_together(objective, [np.ones(2), np.full(2, 3.0)], {})
    assert calls == [[0, 1], [0, 1]]
