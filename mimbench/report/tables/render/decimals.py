"""Numbers of a LaTeX column below each other, decimal point by decimal point, in a column that is set to the right."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MEAN = re.compile(r"(−?)(\d+)(\.\d+)(?: ± (\d+)(\.\d+))?")
"""A mean, and its spread if it has one: "9.5 ± 10.1"."""


class Decimals:
    """How much invisible text each number of one column needs."""

    def __init__(self, texts: Sequence[str]) -> None:
        """texts: of all cells of the column. Those that are no means are left as they are."""
        means = [match for text in texts if (match := _MEAN.fullmatch(text))]
        spreads = [match for match in means if match[4]]
        self._digits = max((len(match[4]) for match in spreads), default=0)
        """Of the longest spread, before its point."""
        self._decimals = max((len(match[5]) - 1 for match in spreads), default=0)
        self._is_needed = len(means) > 1

    def pad(self, text: str, shown: str) -> str:
        """The LaTeX of a cell with invisible digits that move its mean's point to where those of the others are.

        Args:
            text: of the cell.
            shown: its LaTeX.
        """
        match = _MEAN.fullmatch(text)
        if not match or not self._is_needed or not self._digits:
            return shown
        if match[4]:
            # The digits stand between the sign and the spread, so that the spreads' points are below each other too.
            missing = self._digits - len(match[4])
            return shown.replace(r" $\pm$ ", rf" $\pm$ \phantom{{{'0' * missing}}}") if missing else shown
        return rf"{shown}\phantom{{ $\pm$ {'0' * self._digits}.{'0' * self._decimals}}}"
