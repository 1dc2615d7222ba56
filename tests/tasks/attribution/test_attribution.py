"""Maps of made-up classifiers that are known, scores with known values, and a run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from helpers.refusals import refused
from mimbench.api import ArraySplit, recorded_attention
from mimbench.encoders.vit import ViT
from mimbench.testing import parametrize_checks, task_suite
from mimbench_tasks.attribution import maps, scoring
from mimbench_tasks.attribution.probe import Probe, fit_head
from mimbench_tasks.attribution.task import CONTROLS, SCORES, Attribution, AttributionConfig


@parametrize_checks(task_suite(Attribution, {"images": 60}))
def test_it_passes_the_checks_for_tasks(check):
    check()


TARGET = torch.tensor([1, 1])


class Linear(nn.Module):
    """The logit of class 1 is a weighted sum of pixels."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.encoder = weight, SimpleNamespace(grid=(2, 2), stride=4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logit = (images * self.weight).sum((1, 2, 3))
        return torch.stack((torch.zeros_like(logit), logit), 1)


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def ranked(of_images: torch.Tensor) -> torch.Tensor:
    noise = scoring.uniform_noise(0, range(len(of_images)), of_images[0].numel())
    return scoring.ranked(of_images, noise)


def vit() -> ViT:
    torch.manual_seed(0)
    config = ViT.Config(patch_size=4, embed_dim=16, depth=2, num_heads=2)
    return ViT.build(config, image_size=8, in_channels=1, frames=1).eval()


def test_occlusion_points_at_the_patch_that_the_classifier_reads():
    weight = torch.zeros(1, 8, 8)
    weight[:, 4:, :4] = 0.1
    mask = (weight > 0).expand(2, -1, -1)
    assert scoring.points_at(ranked(maps.occlusion(Linear(weight), images() + mask[:, None], TARGET)), mask, 0).all()


@pytest.mark.parametrize("explain", [maps.occlusion, maps.integrated_gradients])
def test_a_plain_image_of_any_brightness_has_nothing_to_explain(explain):
    """Pixels that are left out get the image's own mean, and not a value that is an object on this ground."""
    plain = torch.full((2, 1, 8, 8), 0.7) + torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    assert explain(Linear(torch.rand(1, 8, 8)), plain, TARGET).abs().max() < 1e-5


def test_pixels_that_are_left_out_have_the_mean_of_their_image():
    seen = []
    scoring.deletion_and_insertion(lambda one: seen.append(one) or one.sum((1, 2, 3)), images(), ranked(images()[:, 0]))
    mean = images().mean((1, 2, 3))
    everything_deleted, nothing_inserted = seen[-2], seen[1]
    for plain in (everything_deleted, nothing_inserted):
        assert torch.allclose(plain, mean.view(2, 1, 1, 1).expand_as(plain), atol=1e-6)


def test_integrated_gradients_of_a_linear_classifier_are_exact():
    weight = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1))
    attributed = maps.integrated_gradients(Linear(weight), images(), TARGET)
    difference = images() - images().mean((2, 3), keepdim=True)
    assert torch.allclose(attributed, (difference * weight)[:, 0].clamp_min(0), atol=1e-6)


def test_recorded_attention_leaves_outputs_as_they_are_and_has_gradients():
    encoder = vit()
    expected = encoder.features(images()).pooled
    with recorded_attention() as weights:
        pooled = encoder.features(images()).pooled
    assert torch.allclose(pooled, expected, atol=1e-5)
    returned = [*encoder.attention(images())]
    assert len(weights) == 2
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(weights, returned, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(pooled.square().sum(), weights))


@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_attention_to_one_patch_makes_that_patch_relevant(pooling, monkeypatch):
    encoder = vit()
    prefix = encoder.num_prefix_tokens
    if pooling == "token" and not prefix:
        pytest.skip("no class token")
    weights = torch.zeros(2, 2, prefix + 4, prefix + 4)
    weights[..., prefix + 3] = 1
    monkeypatch.setattr(encoder, "attention", lambda _: iter([weights, weights]))
    probe = Probe(encoder, torch.zeros(2, 16), torch.zeros(2), layer=-1, pooling=pooling)
    relevance = maps.rollout(probe, images(), TARGET)
    assert torch.equal(relevance[:, 7, 7], relevance.amax((1, 2)))
    assert (relevance[:, 7, 7] > 2 * relevance[:, 0, 0]).all()


@pytest.mark.parametrize("explain", [maps.rollout, maps.gradient_attention])
def test_maps_of_attention_stop_at_the_layer_that_the_probe_reads(explain):
    def relevance(encoder: ViT) -> torch.Tensor:
        weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(2))
        return explain(Probe(encoder, weight, torch.zeros(2), layer=0, pooling="mean"), images(), TARGET)

    changed = vit()
    torch.manual_seed(1)
    for parameter in changed.body.blocks[1].parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(relevance(changed), relevance(vit()))


def test_gradient_attention_is_the_rule_written_out():
    encoder = vit()
    weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(2))
    probe = Probe(encoder, weight, torch.zeros(2), layer=-1, pooling="mean")
    relevance = maps.gradient_attention(probe, images(), TARGET)
    with recorded_attention() as layers:
        gradients = torch.autograd.grad(probe(images())[:, 1].sum(), layers)
    count, prefix = layers[0].shape[-1], encoder.num_prefix_tokens
    total = torch.eye(count).expand(2, -1, -1)
    for layer, gradient in zip(layers, gradients, strict=True):
        total = total + (layer * gradient).clamp_min(0).mean(1) @ total
    expected = total[:, prefix:, prefix:].mean(1).unflatten(1, (2, 2))
    enlarged = torch.nn.functional.interpolate(expected[:, None], (8, 8), mode="bilinear")[:, 0]
    assert torch.allclose(relevance, enlarged, atol=1e-6)


def test_the_head_is_the_regression_on_features_as_they_are():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).numpy() * [1, 10, 1, 1, 1] + 3
    labels = (x[:, 1] > 3).astype(int)
    weight, bias = fit_head(x.astype("float32"), labels, 3, 1.0)
    logits = torch.from_numpy(x).float() @ weight.T + bias
    assert (logits.argmax(1).numpy() == labels).mean() > 0.9
    assert logits[:, 2].max() == -torch.inf


def test_the_object_itself_has_full_scores_and_noise_those_of_chance():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(2000, 8, 8, generator=generator) < 0.2
    masks[:, 0, 0] = True
    order = ranked(masks.float())
    assert scoring.points_at(order, masks, 0).all()
    assert scoring.energy(masks.float(), masks).tolist() == pytest.approx([100] * 2000)
    noise = torch.rand(2000, 8, 8, generator=generator)
    hits = scoring.points_at(ranked(noise), masks, 1).double().mean()
    assert hits.item() == pytest.approx(scoring.widened(masks, 1).double().mean().item(), abs=0.03)
    area = 100 * masks.double().mean().item()
    assert scoring.energy(noise, masks).mean().item() == pytest.approx(area, abs=1)
    assert scoring.energy(torch.zeros(2000, 8, 8), masks).mean().item() == pytest.approx(area)


def test_a_mask_is_widened_by_a_disc():
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 2, 2] = True
    assert [scoring.widened(mask, reach).sum().item() for reach in (0, 1, 1.5, 2)] == [1, 5, 9, 13]


def test_the_right_order_deletes_fast_and_inserts_fast():
    weight = torch.zeros(1, 8, 8)
    weight[:, :2] = 1.0
    probe = Linear(weight)

    def probability(changed):
        return (probe(changed)[:, 1] - 8).sigmoid()

    shown = weight + 0.1 * images()
    good = scoring.deletion_and_insertion(probability, shown, ranked(weight.expand(2, -1, -1)))
    bad = scoring.deletion_and_insertion(probability, shown, ranked(-weight.expand(2, -1, -1)))
    assert (good[0] < bad[0] - 0.2).all()
    assert (good[1] > bad[1] + 0.2).all()


def test_rank_correlation_of_equal_and_reversed_maps():
    one = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = scoring.uniform_noise(0, range(3), 128).chunk(2, dim=1)
    assert scoring.rank_correlation(one, 2 * one + 1, noise).tolist() == pytest.approx([1, 1, 1])
    assert scoring.rank_correlation(one, -one, noise).tolist() == pytest.approx([-1, -1, -1])
    plain = torch.zeros(3, 8, 8)
    assert scoring.rank_correlation(plain, plain, noise).abs().max() < 0.5


def test_noise_follows_from_seed_and_image_and_not_from_the_batch():
    noise = scoring.uniform_noise(0, [4, 7, 9], 64)
    assert torch.equal(scoring.uniform_noise(0, [7], 64), noise[1:2])
    assert not torch.equal(scoring.uniform_noise(1, [7], 64), noise[1:2])
    assert len({tuple(row) for row in scoring.ranked(torch.zeros(3, 8, 8), noise).tolist()}) == 3


def test_controls_are_as_coarse_as_the_map_that_they_are_compared_with():
    encoder, masks = vit(), torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[:, :3, :5] = True
    probe = Probe(encoder, torch.zeros(2, 16), torch.zeros(2), layer=-1, pooling="mean")
    noise = scoring.uniform_noise(0, range(2), 3 * 64)
    for name, intensity in (
        ("occlusion", maps.coarsened(maps.intensity_map(images()), (2, 2))),
        ("integrated-gradients", maps.intensity_map(images())),
    ):
        task = Attribution(AttributionConfig(map=name))
        scores, _, _ = task._measure(probe, encoder, images(), masks, noise)
        assert torch.allclose(scores["intensity"]["energy"], scoring.energy(intensity, masks))


def test_edges_are_where_neighbours_differ():
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1
    assert maps.edge_map(step)[0].tolist() == [[0, 1, 0, 0]] * 4


RUN = ("run", "--method", "simmim", "--task", "attribution", "--recipe", "smoke")
FEW = ("task.images=16", "task.data.train_scenes=100", "task.data.test_scenes=60")


def test_a_run_keeps_the_controls_and_says_what_is_beaten(quick):
    done = quick(*RUN, "--json", *(word for option in FEW for word in ("--set", option)))
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    values = {name: metric["value"] for name, metric in record["metrics"].items()}
    controls = record["details"]["controls"]
    assert (controls["object"]["pointing"], controls["object"]["energy"]) == (100, pytest.approx(100))
    leads = record["details"]["leads"]
    assert values["pointing_margin"] == pytest.approx(min(lead for lead, _, _ in leads["pointing"].values()))
    assert leads["pointing"]["edges"][0] == pytest.approx(values["pointing"] - controls["edges"]["pointing"])
    assert leads["deletion"]["edges"][0] == pytest.approx(controls["edges"]["deletion"] - values["deletion"])
    shown, _, missed = record["details"]["verdict"].partition("; not shown by ")
    for score, of_controls in leads.items():
        is_shown = all(low > 0 for _, low, _ in of_controls.values())
        assert (score in shown, score in missed) == (is_shown, not is_shown)


def test_a_lead_counts_only_if_its_interval_over_images_leaves_out_0():
    """A hit in 3 of 4 images against 2 of 4 is nothing; in 75 of 100 against 50 of 100 it is."""

    def verdict(count: int) -> str:
        flat = torch.zeros(4 * count, dtype=torch.float64)
        control = dict.fromkeys(SCORES, flat) | {"pointing": torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(count)}
        explained = control | {"pointing": torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(count)}
        scores = dict.fromkeys((*CONTROLS, "object"), control) | {"occlusion": explained}
        result = Attribution(AttributionConfig())._result(scores, flat, np.ones(1))
        assert result.metrics["pointing_margin"].value == pytest.approx(25)
        return result.details["verdict"]

    assert verdict(1).startswith("shown to be better than every control by no score")
    assert verdict(25).startswith("shown to be better than every control by pointing;")


def test_chance_is_the_same_at_any_size_of_the_images():
    def chance(side: int) -> float:
        masks = torch.zeros(2, side, side, dtype=torch.bool)
        masks[:, : side // 4, : side // 4] = True
        split = ArraySplit(torch.zeros(2, 1, side, side), torch.tensor([0, 1]), ("a", "b"), object_masks=masks)
        return Attribution(AttributionConfig()).chance(SimpleNamespace(name="made", split=lambda _: split))

    assert chance(28) == pytest.approx(chance(224), abs=1.5)


def test_what_cannot_be_explained_is_refused_in_one_line(quick):
    refused(quick(*RUN, "--set", "task.dataset=digits"), "object-masks")
    swin = ("--set", "encoder.name=swin", "--set", "task.map=rollout")
    refused(quick(*RUN, *swin), "return its attention weights")


def test_results_do_not_depend_on_the_batch_down_to_one_image(quick):
    def measured(batch: int) -> list[float]:
        words = (word for option in (*FEW, f"task.batch={batch}") for word in ("--set", option))
        done = quick(*RUN, "--results", f"batch-{batch}", "--json", *words)
        assert done.returncode == 0, done.stderr
        (record,) = json.loads(done.stdout)
        of_controls = [value for one in record["details"]["controls"].values() for value in one.values()]
        return [metric["value"] for metric in record["metrics"].values()] + of_controls

    assert measured(1) == pytest.approx(measured(16), abs=0.01)
