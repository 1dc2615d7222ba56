"""Widths of figures by where they are published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Venue:
    """Widths in inches, and the resolution of PNG."""

    column: float
    page: float
    dpi: int = 300


VENUES = {
    "cvpr": Venue(3.25, 6.875),  # cvpr.sty: two columns of 3 1/4 inches, 6 7/8 together
    "neurips": Venue(5.5, 5.5),  # neurips.sty: one column of 5.5 inches
    "iclr": Venue(5.5, 5.5),  # iclr_conference.sty: as NeurIPS
    "ieee": Venue(3.5, 7.16),  # IEEEtran: two columns of 21 pica, 43 pica together
    "slide": Venue(5.0, 5.0, 600),  # shown at twice the size, on which text of 7 points has 14
}
