"""Other codes' checkpoints, in and out: recognised by their keys, renamed, reordered, checked tensor by tensor."""

from mimbench.convert.apply import ConvertedWeights, resize_positions, to_encoder, to_method, to_part
from mimbench.convert.key_layouts import LAYOUTS, KeyLayout, recognise
from mimbench.convert.network_choice import Weights
from mimbench.convert.timm_names import to_timm
from mimbench.convert.weight_files import read_weights

__all__ = [
    "LAYOUTS",
    "ConvertedWeights",
    "KeyLayout",
    "Weights",
    "read_weights",
    "recognise",
    "resize_positions",
    "to_encoder",
    "to_method",
    "to_part",
    "to_timm",
]
