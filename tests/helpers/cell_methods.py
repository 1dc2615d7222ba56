"""What the tests of GreenMIM and MixMIM share: official masks, groups and rates."""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.official_values import GOLDEN, check_rates, read_arrays, read_json
from helpers.presets import resolved
from mimbench.contract import Method, TrainConfig
from mimbench.harness.planning.build import build
from mimbench.masks import resize_mask
from mimbench.optim import param_groups
from mimbench.parity.golden import read_golden, setup_of


def check_cell_masks(method: Method, name: str) -> None:
    """Three draws of each official random stream give the masks of mask_exact_a, `name`, one for the whole batch."""
    for seed, draws in enumerate(read_arrays("mask_exact_a")[0][name].bool()):
        generator = torch.Generator().manual_seed(seed)
        for expected in draws:
            mask = method.masked_cells(method.sample_mask(2, generator))
            assert torch.equal(mask, expected.expand(2, -1, -1)), seed


def check_cell_distribution(method: Method, official: str) -> None:
    """Counts are equal to those of mask_stats_a, and each cell is masked as often, up to five standard errors.

    official: beginning of the name of its generator there.
    """
    (case,) = (case for case in read_json("mask_stats_a")["stats"] if case["generator"].startswith(official))
    generator = torch.Generator().manual_seed(1)
    masks = torch.cat([method.sample_mask(1, generator) for _ in range(2000)])
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


def check_any_grid(method: Method, images: Tensor, mask: Tensor) -> None:
    """A finer grid with the same cells gives the same prediction; masked everywhere, all images give the same."""
    finer = resize_mask(mask, tuple(4 * side for side in mask.shape[1:]))
    assert torch.equal(method.predict(images, finer), method.predict(images, mask))
    nothing = method.predict(images, torch.ones_like(mask))
    assert torch.equal(nothing, method.predict(images.flip(-1), torch.ones_like(mask)))


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
