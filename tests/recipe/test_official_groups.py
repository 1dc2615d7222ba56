"""What methods and protocols decay, and how far down layer decay reaches: against the official optimizers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mimbench.contract import InputConfig, Method, TrainConfig
from mimbench.harness.planning.build import build
from mimbench.optim import decay_rules, param_groups
from mimbench.parity.golden import read_golden, setup_of
from mimbench.recipe import document as recipe_document
from mimbench_tasks.finetune.config import FinetuneConfig
from mimbench_tasks.finetune.model import Classifier, FinetuneTraining, adapt, freeze_unreached
from mimbench_tasks.finetune.task import Finetune

GOLDEN = Path(__file__).parents[1] / "golden"
OFFICIAL = json.loads((GOLDEN / "layer_decay.json").read_text())
OFFICIAL |= json.loads((GOLDEN / "decay_groups_b.json").read_text())
PRETRAINED = {
    "simmim_pretrain_vit": "simmim_vit_tiny",
    "simmim_pretrain_swin": "simmim_swin_tiny",
    "mae_pretrain_vit": "mae_vit_tiny_rawpix",
    "beit_pretrain_vit": "beit_vit_tiny",
}
FINE_TUNED = {
    "simmim_finetune_vit": ("simmim_vit_tiny", "simmim-vit-base", {}),
    "simmim_finetune_swin": ("simmim_swin_tiny", "simmim-swin-base-100ep", {"window": 4}),
    "mae_finetune_vit_global_pool": ("mae_vit_tiny_rawpix", "mae-vit-base", {}),
    "mae_finetune_vit_cls_token": ("mae_vit_tiny_rawpix", "mae-vit-base", {"pooling": "token", "norm": "encoder"}),
    "beit_finetune_vit": ("beit_vit_tiny", "beit-vit-base", {}),
    "maskfeat_finetune": ("maskfeat_vit_tiny", "maskfeat-vit-base", {}),
}


def method_of(golden: str) -> Method:
    return build(setup_of(read_golden(GOLDEN / f"{golden}.npz"))[0])


def official_name(name: str, method: Method) -> str:
    """The official one; where SimMIM says "encoder." before it, without that."""
    for prefix in ("classifier.encoder.body.", "encoder.body.", "classifier."):
        if name.startswith(prefix):
            inner = name.removeprefix(prefix)
            stage = inner.split(".")[1] if ".downsample." in inner else ""
            return inner.replace(f"layers.{stage}.", f"layers.{int(stage) - 1}.", 1) if stage else inner
    names = {name_here: official for official, name_here in method.official.names.items() if name_here}
    head, dot, rest = name.partition(".")
    return names.get(head, head) + dot + rest


def maskfeat_name(name: str) -> str:
    """MaskFeat's classifier has other names for its head and the norm before it."""
    return name.replace("fc_norm.", "norm.") if "fc_norm" in name else re.sub(r"^head\.", "head.projection.", name)


@pytest.mark.parametrize("case", PRETRAINED)
def test_pretraining_decays_what_the_official_script_decays(case):
    method = method_of(PRETRAINED[case])
    train = TrainConfig(epochs=1, batch_size=1, base_lr=1.0)
    groups = param_groups(method, train, no_decay=method.no_weight_decay())
    decayed = {official_name(name, method): g["weight_decay"] > 0 for g in groups for name in g["names"]}
    official = {name.removeprefix("encoder."): True for name in OFFICIAL[case]["decay"]}
    assert decayed == official | {name.removeprefix("encoder."): False for name in OFFICIAL[case]["no_decay"]}


@pytest.mark.parametrize("case", FINE_TUNED)
def test_fine_tuning_has_the_official_groups_and_scales(case):
    golden, protocol, changed = FINE_TUNED[case]
    method, official = method_of(golden), OFFICIAL[case]
    size = method.encoder.image_size
    changed = {**changed, "image_size": size, "train": {"layer_decay": official["layer_decay"]}}
    config = FinetuneConfig(**recipe_document.merge(Finetune.protocols[protocol].options, changed))
    classifier = Classifier(adapt(method.encoder, config, size), config, classes=10)
    freeze_unreached(classifier)
    model = FinetuneTraining(classifier, config, InputConfig(image_size=size), batched=True)
    groups = param_groups(model, config.train, **decay_rules(model))
    rename = maskfeat_name if method.name == "maskfeat" else str
    scales = {rename(official_name(name, method)): g["lr_scale"] for g in groups for name in g["names"]}
    decayed = {rename(official_name(name, method)) for g in groups if g["weight_decay"] for name in g["names"]}
    assert scales == pytest.approx(official["lr_scale"], rel=1e-9)
    assert decayed == set(official["decay"])
