"""The attentive probe: what it trains, what it chooses on, what it refuses, and its protocols."""

from __future__ import annotations

import pytest
import torch

from helpers.tiny_finetune import Greys, context, encoder
from mimbench.contract import InputError
from mimbench.contract.validation import validate
from mimbench.testing import parametrize_checks, task_suite
from mimbench_tasks.attentive_probe.config import AttentiveProbeConfig
from mimbench_tasks.attentive_probe.task import AttentiveProbe

BRIEF = {"train": {"epochs": 2, "batch_size": 8, "schedule": {"warmup_epochs": 0}}, "queries": 4}
CHECKED = {"train": {"epochs": 6, "batch_size": 24}, "heads": ("ep", "cae", "mean"), "rates": (3e-3, 1e-2)}


@parametrize_checks(task_suite(AttentiveProbe, CHECKED))
def test_the_attentive_probe_passes_the_checks_for_tasks(check):
    check()


def probe(**options):
    return AttentiveProbe(validate(AttentiveProbeConfig, {**BRIEF, **options}, "tasks.attentive-probe"))


def test_every_head_is_scored_with_the_rate_that_is_best_on_held_out_images(tmp_path):
    data, task = Greys(n=64), probe(heads=("ep", "abmilp", "gated_abmilp", "capi", "cae", "vjepa", "mean", "token"))
    result = task.run(encoder(), data, context(tmp_path))
    details, names = result.details, task.config.heads
    assert set(result.metrics) == {"top1", "top5", *(f"top1_{name}" for name in names)}
    assert (details["held_out_images"], len(details["held_out_top1"])) == (6, 8 * 4)
    for name in names:
        rates = {rate: details["held_out_top1"][f"{name}, rate {rate:g}"] for rate in task.config.rates}
        assert details["chosen"][name] == {"rate": max(rates, key=rates.get), "held_out_top1": max(rates.values())}
    best = details["best_head"]
    assert best not in ("mean", "token")
    assert details["chosen"][best]["held_out_top1"] == max(details["chosen"][n]["held_out_top1"] for n in names[:6])
    assert result.metrics["top1"] == result.metrics[f"top1_{best}"]
    assert set(details["attention"]) == set(names[:6])
    assert all(0 <= values["entropy"] <= 1 + 1e-9 for values in details["attention"].values())
    assert details["parameters"]["mean"] == 16 * 4 + 4
    assert details["absent"] == {}
    assert len(result.curves["loss"]) == 2
    assert result.cost.steps == 2 * (58 // 8)


def test_with_one_head_and_one_rate_nothing_is_held_out(tmp_path):
    result = probe(heads=("capi", "mean"), rates=(1e-2,)).run(encoder(), Greys(n=64), context(tmp_path))
    assert result.cost.steps == 2 * (64 // 8)
    assert result.details["held_out_images"] == 0
    assert result.details["chosen"] == {"capi": {"rate": 1e-2}, "mean": {"rate": 1e-2}}
    assert result.details["absent"]["top1_ep"] == "the head is not among task.heads"


def test_a_rate_that_diverges_is_not_chosen_and_stops_no_other(tmp_path):
    train = {**BRIEF["train"], "optimizer": "sgd"}
    wild = probe(heads=("capi",), rates=(1e-2, 1e30), train=train).run(encoder(), Greys(n=64), context(tmp_path / "a"))
    tame = probe(heads=("capi",), rates=(1e-2, 2e-2), train=train).run(encoder(), Greys(n=64), context(tmp_path / "b"))
    assert wild.details["diverged"] == ["capi, rate 1e+30"]
    assert wild.details["chosen"]["capi"]["rate"] == 1e-2
    label = "capi, rate 0.01"
    assert wild.details["held_out_top1"][label] == tame.details["held_out_top1"][label]


def test_tokens_of_every_encoder_can_be_read(tmp_path):
    for kind in ("swin", "convnext", "resnet"):
        built = encoder(kind)
        task = probe(heads=("ep",), rates=(1e-2,), layer=0, queries=4)
        task.check(built, Greys())
        assert "top1_ep" in task.run(built, Greys(), context(tmp_path / kind)).metrics


def test_the_class_token_joins_the_patches():
    images, vit = torch.randn(2, 1, 8, 8), encoder()
    alone, joined = (probe(tokens=tokens)._read(vit, images)["tokens"] for tokens in ("patches", "patches+token"))
    assert (alone.shape, joined.shape) == ((2, 4, 16), (2, 5, 16))
    assert torch.equal(joined[:, 1:], alone)
    assert torch.equal(joined[:, 0], vit.features(images).pool("token"))


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"queries": 5}, "vit", r"task\.queries 5 does not divide the 16 channels of the tokens; set task\.queries=4"),
        ({"layer": 2}, "vit", r"task\.layer 2 is outside this encoder's 2 layers"),
        ({"tokens": "patches+token"}, "swin", r"task\.pooling 'token' needs a class token"),
        ({"heads": ["ep", "token"]}, "resnet", r"task\.pooling 'token' needs a class token"),
        ({"train": {"batch_size": 30}}, "vit", r"task\.train\.batch_size 30 is more than the 29 training images"),
        ({"train": {"batch_size": 1}}, "vit", "two or more images in each micro-batch"),
        ({"heads": ["mean"]}, "vit", "none of them attends"),
        ({"heads": ["ep", "ep"]}, "vit", "names one value twice"),
        ({"heads": ["attentive"]}, "vit", "heads"),
        ({"rates": [0.1, 0.0]}, "vit", "rates must be above 0"),
        ({"weight_decays": [-1.0]}, "vit", "weight_decays must be 0 or above"),
        ({"weight_decays": [0.1], "train": {"weight_decay": 1e-3, "final_weight_decay": 0.0}}, "vit", "are constant"),
        ({"augmentation": {"auto_augment": "strange"}}, "vit", "is no policy that timm knows"),
    ],
)
def test_what_cannot_run_is_refused_while_planning(options, kind, words):
    with pytest.raises(InputError, match=words):
        probe(**options).check(encoder(kind), Greys())


@pytest.mark.parametrize("name", sorted(AttentiveProbe.protocols))
def test_every_value_of_a_protocol_has_a_source_and_can_be_trained(name, tmp_path):
    protocol = AttentiveProbe.protocols[name]
    for key in protocol.options:
        repositories = ("billpsomas/", "gmum/", "Atten4Vis/", "facebookresearch/")
        assert protocol.sources[key].startswith(("mimbench", "arXiv:", *repositories)), key
    train = {**protocol.options["train"], "batch_size": 8, "schedule": {}, "optimizer": "adamw", "nesterov": False}
    train = {key: value for key, value in train.items() if key != "steps"} | {"epochs": 1}
    task = probe(**protocol.options | {"train": train, "queries": 4, "rates": protocol.options["rates"][:1]})
    task.check(encoder(), Greys())
    assert task.run(encoder(), Greys(), context(tmp_path)).metrics["top1"].n == 32


def test_protocols_have_the_effective_rates_of_the_official_scripts():
    def peak(name):
        config = AttentiveProbeConfig(**AttentiveProbe.protocols[name].options)
        return [rate * config.train.lr_scale for rate in config.rates]

    assert peak("efficient-probing") == [1.6]
    assert peak("abmilp") == [6.4]
    assert (peak("cae"), peak("vjepa")) == ([0.4], [1e-3])
    assert (peak("capi")[0], peak("capi")[-1], len(peak("capi"))) == (4e-5, 4e-2, 10)
