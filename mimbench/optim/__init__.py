"""Optimizers, parameter groups and learning-rate schedules, as the official scripts have them."""

from mimbench.optim.groups import build_optimizer, decay_rules, param_groups, set_rates
from mimbench.optim.layers import encoder_layers, swin_layer, vit_layer
from mimbench.optim.schedules import Schedule

__all__ = [
    "Schedule",
    "build_optimizer",
    "decay_rules",
    "encoder_layers",
    "param_groups",
    "set_rates",
    "swin_layer",
    "vit_layer",
]
