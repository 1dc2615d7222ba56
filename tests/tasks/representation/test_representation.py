"""Measures of layers: identities that hold exactly, known values of noise, and a run."""

from __future__ import annotations

import json
import math

import pytest
import torch

from mimbench.testing import parametrize_checks, task_suite
from mimbench_tasks.representation import measures
from mimbench_tasks.representation.task import Representation


@parametrize_checks(task_suite(Representation, {"images": 8}))
def test_it_passes_the_checks_for_tasks(check):
    check()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cka_does_not_see_rotation_scale_or_mean():
    x = noise(64, 20) @ torch.diag(torch.arange(1.0, 21.0, dtype=torch.float64))
    rotation, _ = torch.linalg.qr(noise(20, 20, seed=1))
    cka = measures.debiased_cka([x, 3 * x @ rotation + 7, x[:, :10]])
    assert cka[0, 1].item() == pytest.approx(1)
    assert cka.diagonal().tolist() == pytest.approx([1, 1, 1])
    assert 0 < cka[0, 2] < 0.9
    assert torch.equal(cka, cka.T)


def test_cka_of_independent_features_is_zero_where_the_biased_one_is_not():
    count, width = 256, 768
    x, y = noise(count, width), noise(count, width, seed=1)
    assert abs(measures.debiased_cka([x, y])[0, 1]) < 0.02
    x, y = x - x.mean(0), y - y.mean(0)
    biased = (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    assert biased.item() == pytest.approx(width / (count + width), abs=0.01)


def test_cka_is_that_of_the_definition():
    """Song et al., equation 5, written out."""
    x, y = noise(9, 3), noise(9, 5, seed=1) + 2

    def hsic(a, b):
        n = len(a)
        k, m = ((one @ one.T).fill_diagonal_(0) for one in (a, b))
        total = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
        return total / (n * (n - 3))

    expected = hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()
    assert measures.debiased_cka([x, y])[0, 1].item() == pytest.approx(expected.item())


def test_a_constant_layer_has_no_similarity():
    assert measures.debiased_cka([torch.ones(8, 3), noise(8, 3)]).tolist() == [[0, 0], [0, pytest.approx(1)]]


@pytest.mark.parametrize("side", [7, 14])
def test_white_noise_has_half_of_ln_2_at_high_frequencies(side):
    spectrum = measures.spectrum(noise(256, 64, side, side))
    assert spectrum.shape == (256, (side - 1) // 2 + 1)
    assert spectrum.mean(0)[1:].tolist() == pytest.approx([math.log(2) / 2] * (spectrum.shape[1] - 1), abs=0.03)


def test_a_constant_map_has_no_high_frequency_and_a_wave_has_its_own():
    floor = 1e-6
    constant = measures.spectrum(torch.ones(1, 1, 8, 8))
    assert constant[0].tolist() == pytest.approx([0] + [math.log(floor / 64)] * 3, abs=1e-3)
    axis = torch.arange(8, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * 2 * (axis[:, None] + axis[None, :]) / 8)
    expected = [0, math.log(floor / 64), math.log(0.5), math.log(floor / 64)]
    assert measures.spectrum(1 + wave[None, None])[0].tolist() == pytest.approx(expected, abs=1e-3)


def test_similarity_of_patches():
    equal = torch.ones(2, 5, 4) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])[None, :, None]
    assert measures.patch_similarity(equal).tolist() == pytest.approx([1, 1])
    assert measures.patch_similarity(torch.eye(4)[None]).tolist() == pytest.approx([0])
    patches = noise(3, 6, 8)
    pairs = [torch.cosine_similarity(patches[:, a], patches[:, b], dim=1) for a in range(6) for b in range(6) if a != b]
    assert measures.patch_similarity(patches).tolist() == pytest.approx(torch.stack(pairs).mean(0).tolist())
    assert measures.patch_similarity(patches[:, :1]).tolist() == [1, 1, 1]


def test_a_shallow_encoder_has_a_reason_for_each_absent_metric(quick):
    run = ["run", "--method", "mae", "--task", "representation", "--recipe", "smoke", "--json"]
    small = ("encoder.depth=1", "encoder.patch_size=14", "task.images=16", "data.train_limit=64")
    done = quick(*run, *(word for option in small for word in ("--set", option)))
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert set(record["metrics"]) == {"patch_similarity", "effective_rank"}
    assert record["details"]["absent"] == {
        "high_frequency": "the last map has fewer than 3 x 3 cells",
        "cka_adjacent": "the encoder has one layer",
        "cka_first_last": "the encoder has one layer",
    }
