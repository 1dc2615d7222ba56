"""Other codes' checkpoints, in and out: recognised by their keys, renamed, reordered, checked tensor by tensor."""

from mimbench.convert.apply import Converted, resized, to_encoder, to_method
from mimbench.convert.layouts import LAYOUTS, Layout, recognise
from mimbench.convert.networks import Weights
from mimbench.convert.timm_names import to_timm
from mimbench.convert.weight_files import read_weights

__all__ = [
    "LAYOUTS",
    "Converted",
    "Layout",
    "Weights",
    "read_weights",
    "recognise",
    "resized",
    "to_encoder",
    "to_method",
    "to_timm",
]
