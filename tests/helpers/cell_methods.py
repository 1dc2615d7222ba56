"""What the tests of GreenMIM and MixMIM share: official groups, rates and distribution of masks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from helpers.official_values import GOLDEN, check_rates, read_json
from helpers.presets import resolved
from mimbench.contract import Method, TrainConfig
from mimbench.harness.planning.build import build
from mimbench.optim import param_groups
from mimbench.parity.golden import read_golden, setup_of


def check_cell_distribution(masks: Tensor, case: dict[str, Any]) -> None:
    """Counts are equal, and each cell is masked as often, up to five standard errors."""
    assert list(masks.shape[1:]) == case["grid"]
    counts = masks.sum((1, 2))
    assert counts.min() == counts.max() == case["count"]["min"] == case["count"]["max"]
    ratio, share = case["ratio"], masks.float().mean(0)
    error = 5 * (ratio * (1 - ratio) / len(masks)) ** 0.5
    assert ((share - ratio).abs() < error).all()
    for name, cells in {
        "corners": share[[0, 0, -1, -1], [0, -1, 0, -1]].mean(),
        "centre": share[2:5, 2:5].mean(),
    }.items():
        assert abs(cells - case["position_prob"][name]) < error, name


def check_pretraining(name: str, case: str) -> None:
    """The recipe's rates and decays against those of the official epoch loop, at its base rate."""
    official = read_json("schedules_a")[f"{name}_pretrain/{case}"]
    train = resolved("imagenet-swin-base-224", name).pretrain
    assert (list(train.betas), train.weight_decay) == (official["betas"], official["weight_decay"])
    check_rates(
        train.model_copy(update={"base_lr": official["blr"]}),
        official | {"lr_at_optimizer_step": {"all": official["lr_at_optimizer_step"]}},
    )


def check_groups(name: str) -> None:
    """Which parameters of the golden file's model pretraining decays, by their official names."""
    method = build(setup_of(read_golden(GOLDEN / f"{name}_swin_tiny.npz"))[0])
    groups = param_groups(method, TrainConfig(epochs=1, batch_size=1, base_lr=1.0), no_decay=method.no_weight_decay())
    ours = {_official(name, method): g["weight_decay"] > 0 for g in groups for name in g["names"]}
    official = read_json("param_groups_a")[f"{name}_pretrain"]
    expected = dict.fromkeys(official["decay"], True) | dict.fromkeys(official["no_decay"], False)
    assert ours == {key.removeprefix("encoder."): value for key, value in expected.items()}


def _official(name: str, method: Method) -> str:
    if name.startswith("encoder.body."):
        parts = name.removeprefix("encoder.body.").split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        return ".".join(parts)
    names = {here: there for there, here in method.official.names.items() if here}
    head, dot, rest = name.partition(".")
    return names.get(head, head) + dot + rest
