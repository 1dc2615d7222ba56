"""mimbench: a benchmark and evaluation harness for masked image modeling."""

__version__ = "0.1.0"
