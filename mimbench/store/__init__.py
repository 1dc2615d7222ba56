"""The results folder. Nothing of torch is imported before a file of it is opened."""

from pathlib import Path

DEFAULT_RESULTS = Path("runs")
