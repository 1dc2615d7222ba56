"""Digits from several pipelines: sources have equally many of each digit, and differ by the pipeline alone."""

from __future__ import annotations

import pytest
import torch

from mimbench.data.sources.digit_sources import DigitSources, DigitSourcesConfig
from mimbench.data.sources.embedded import EmbeddedConfig, MNIST5k
from mimbench.testing import dataset_suite, parametrize_checks

SMALL = {"train_limit": 60, "test_limit": 40}


def make(cache, **options) -> DigitSources:
    return DigitSources(DigitSourcesConfig(**options), cache)


@parametrize_checks(dataset_suite(DigitSources, SMALL))
def test_it_passes_the_checks_for_datasets(check):
    check()


def test_sources_have_equally_many_of_each_digit(cache):
    split = make(cache, sources=("plain", "jpeg", "dimmed")).split("test")
    counts = torch.stack([(split.labels[split.attributes["digit"] == digit]).bincount() for digit in range(10)])
    assert (counts.amax(1) - counts.amin(1)).max() <= 1
    assert split.classes == ("0: plain", "1: jpeg", "2: dimmed")


def test_at_dose_0_images_are_those_of_mnist(cache):
    split = make(cache, dose=0.0, sources=("resampled", "jpeg", "dimmed")).split("test")
    assert torch.equal(split.images, MNIST5k(EmbeddedConfig(), cache).split("test").images)


def test_only_the_images_of_a_source_go_through_its_pipeline(cache):
    plain, dimmed = (make(cache, dose=dose, sources=("plain", "dimmed")).split("test") for dose in (0.0, 1.0))
    assert torch.equal(plain.labels, dimmed.labels)
    same = (plain.images == dimmed.images).flatten(1).all(1)
    assert torch.equal(same, plain.labels == 0)
    assert (dimmed.images[~same].double().mean() / plain.images[~same].double().mean()).item() == pytest.approx(
        0.5, abs=0.01
    )


@pytest.mark.parametrize("pipeline", ["resampled", "jpeg", "dimmed"])
def test_pipelines_change_more_with_the_dose(cache, pipeline):
    sizes = {"sources": (pipeline, pipeline), "test_limit": 50}
    plain, *changed = (make(cache, dose=dose, **sizes).split("test").images.double() for dose in (0.0, 0.2, 1.0))
    small, large = ((images - plain).abs().mean().item() for images in changed)
    assert 0 < small < large


def test_an_unknown_pipeline_is_refused():
    with pytest.raises(ValueError, match="'blurred' is no pipeline; choose from plain"):
        DigitSourcesConfig(sources=("plain", "blurred"))
