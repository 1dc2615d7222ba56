"""The results folder. Importing this package does not import torch."""

from pathlib import Path

DEFAULT_RESULTS = Path("runs")
