"""Initial weights of the methods against what their official code draws, layer by layer.

tests/golden/init_stats_b.json has measured values of MaskFeat, data2vec and BEiT v2 (test_maskfeat.py and so on). For
the methods here there are none: the laws were read from the source files that each table names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mimbench.harness.planning.build import build
from mimbench.parity.golden import read_golden, setup_of

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Law:
    """Mean 0 unless it is a constant. A value is at most `largest`, if there is a limit."""

    std: float
    largest: float | None = None
    mean: float = 0.0


Draw = Callable[[Tensor], Law]
"""From a weight, or for a bias from the weight beside it, to what is drawn."""


def constant(value: float) -> Draw:
    return lambda weight: Law(0.0, mean=value)


def normal(std: float) -> Draw:
    """timm's truncated normal is this one, too: it cuts at 2, and not at two deviations."""
    return lambda weight: Law(std)


def cut_normal(std: float) -> Draw:
    """Normal, cut at one deviation."""
    return lambda weight: Law(std * math.sqrt(1 - 2 * 0.2419707 / 0.6826895), std)


def uncut(weight: Tensor) -> Law:
    """timm's truncated normal whose std was left out: deviation 1, cut at 2."""
    return Law(math.sqrt(1 - 4 * 0.0539910 / 0.9544997), 2.0)


def uniform(bound: float) -> Law:
    return Law(bound / math.sqrt(3), bound)


def xavier(weight: Tensor) -> Law:
    """A convolution counts as the linear layer that it is."""
    matrix = weight.flatten(1)
    return uniform(math.sqrt(6 / sum(matrix.shape)))


def torch_default(weight: Tensor) -> Law:
    """Of torch's linear layers and convolutions, weights and biases alike."""
    return uniform(1 / math.sqrt(weight[0].numel()))


def kaiming_fan_out(weight: Tensor) -> Law:
    return Law(math.sqrt(2 / weight[:, 0].numel()))


ZERO, ONE = constant(0.0), constant(1.0)
NORMS = {"*norm*.weight": ONE, "*norm*.bias": ZERO}
MAE = {
    **NORMS,
    "*_token": normal(0.02),
    "*.patch_embed.proj.bias": torch_default,
    "*.patch_embed.proj.weight": xavier,
    "*bias_table": normal(0.02),
    "*.weight": xavier,
    "*.bias": ZERO,
}
CONVNEXT = {**NORMS, "*downsample.0.weight": ONE, "*.stem.1.weight": ONE, "*downsample.0.bias": ZERO}
SPARK_REST = {
    "tokens.*": cut_normal(0.02),
    "project.*": torch_default,
    "decoder.*up_sample.weight": kaiming_fan_out,
    "decoder.*.conv.[14].weight": ONE,
    "decoder.*.weight": normal(0.02),
    "*.bias": ZERO,
}
LAWS: dict[str, dict[str, Draw]] = {
    # Haochen-Wang409/HPM@c15ae907 models_mae_learn_loss.py
    "hpm_vit_tiny": MAE,
    # Haoqing-Wang/LocalMIM@314a6e55 ViT/models_mim.py, read in the copy utkutpcgl/ViTFreeze@141562bf
    "localmim_vit_tiny": {
        "decoders.0.pred.1.weight": ONE,
        "decoders.0.pred.1.bias": ZERO,
        "decoders.*.pred.*": torch_default,
        **MAE,
    },
    # lxtGH/CAE@d7259714 models/modeling_cae.py, models/modeling_cae_helper.py
    "cae_vit_tiny": {
        **NORMS,
        "*_token": cut_normal(0.02),
        "*gamma*": constant(0.1),
        "*.patch_embed.proj.weight": cut_normal(0.02),
        "*bias": ZERO,
        "*.weight": xavier,
    },
    # facebookresearch/ijepa@52c1ae95 src/helper.py, src/models/vision_transformer.py
    "ijepa_vit_tiny": {**NORMS, "*bias": ZERO, "*": normal(0.02)},
    # bytedance/ibot@da316d82 models/vision_transformer.py, models/head.py
    "ibot_vit_tiny": {
        **NORMS,
        "mask_token": ZERO,
        "*.patch_embed.proj.*": torch_default,
        "head.last.gain": ONE,
        "head.last.weight": torch_default,
        "*bias": ZERO,
        "*": normal(0.02),
    },
    # keyu-tian/SparK@a63e386f pretrain/spark.py, pretrain/decoder.py, pretrain/models/convnext.py
    "spark_convnext_tiny": {
        **CONVNEXT,
        "encoder.*gamma": constant(1e-6),
        "encoder.*.weight": normal(0.02),
        **SPARK_REST,
    },
    # the same, and timm's ResNet, whose residual branches begin at 0
    "spark_resnet_tiny": {
        "norms.*.weight": ONE,
        "encoder.*.bn3.weight": ZERO,
        "encoder.*bn*.weight": ONE,
        "encoder.*downsample.1.weight": ONE,
        "encoder.*.weight": kaiming_fan_out,
        **SPARK_REST,
    },
    # facebookresearch/ConvNeXt-V2@25538957 models/fcmae.py, models/convnextv2_sparse.py
    "fcmae_convnextv2_tiny": {
        **CONVNEXT,
        "mask_token": normal(0.02),
        "*.grn.*": ZERO,
        "encoder.*downsample.1.weight": normal(0.02),
        "decoder.*.mlp.*": torch_default,
        "*.weight": uncut,
        "*.bias": ZERO,
    },
    # Sense-X/MixMIM@2b2f5a9a models_mixmim.py
    "mixmim_swin_tiny": {**MAE, "*.patch_embed.proj.weight": torch_default},
    # LayneH/GreenMIM@b9810122 modeling/base_green_models.py
    "greenmim_swin_tiny": MAE,
}
"""Golden file, for its setup -> name or pattern -> what the official code draws; the first that matches counts."""

ELSEWHERE: dict[tuple[str, str], Draw] = {
    ("hpm_vit_tiny", "encoder.body.patch_embed.proj.bias"): ZERO,
    ("localmim_vit_tiny", "encoder.body.patch_embed.proj.bias"): ZERO,
    ("greenmim_swin_tiny", "encoder.body.patch_embed.proj.bias"): ZERO,
    ("mixmim_swin_tiny", "encoder.body.patch_embed.proj.bias"): ZERO,
    ("mixmim_swin_tiny", "encoder.body.patch_embed.proj.weight"): xavier,
    ("ibot_vit_tiny", "head.last.weight"): normal(0.02),
}
"""What differs here, as docs/methods says: (golden file, name) -> what is drawn instead."""


def follows(value: Tensor, law: Law) -> bool:
    """Whether mean, deviation and largest value are those of the law, within five standard errors."""
    values, rounding = value.detach().double(), 1e-7
    error, spread = 5 * law.std / math.sqrt(value.numel()), float(values.std(correction=0))
    return bool(
        abs(values.mean() - law.mean) <= error + rounding
        and (spread > rounding) == (law.std > 0)
        and abs(spread - law.std) <= error / math.sqrt(2) + rounding
        and (law.largest is None or values.abs().max() <= law.largest + rounding)
    )


def law_of(name: str, parameters: dict[str, Tensor], laws: dict[str, Draw]) -> Law:
    draw = next(draw for pattern, draw in laws.items() if fnmatchcase(name, pattern))
    return draw(parameters.get(name.removesuffix("bias") + "weight", parameters[name]))


@pytest.mark.parametrize("golden", LAWS)
def test_initial_weights_follow_the_official_laws(golden):
    torch.manual_seed(0)
    method = build(setup_of(read_golden(GOLDEN / f"{golden}.npz"))[0])
    trained = {name: parameter for name, parameter in method.named_parameters() if parameter.requires_grad}
    different = {name for name, one in trained.items() if not follows(one, law_of(name, trained, LAWS[golden]))}
    known = {name: draw for (file, name), draw in ELSEWHERE.items() if file == golden}
    assert different == set(known)
    for name, draw in known.items():
        assert follows(trained[name], law_of(name, trained, {name: draw})), name


@pytest.mark.parametrize("golden", [golden for golden in LAWS if "spark" not in golden and "fcmae" not in golden])
def test_a_teacher_starts_as_its_student(golden):
    method = build(setup_of(read_golden(GOLDEN / f"{golden}.npz"))[0])
    for name, parameter in method.named_parameters():
        part, _, rest = name.partition(".module.")
        if part not in ("teacher", "teacher_head") or not rest:
            continue
        beginnings = {"teacher_head": ("head.",), "teacher": ("encoder.", "")}[part]
        students = [method.get_parameter(start + rest) for start in beginnings if _has(method, start + rest)]
        assert any(torch.equal(parameter, student) for student in students), name


def _has(method: torch.nn.Module, name: str) -> bool:
    return name in dict(method.named_parameters())
