"""Options as text."""

from __future__ import annotations

import pytest

from mimbench.errors import InputError
from mimbench.options import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3h30m", 12_600), ("90m", 5_400), ("45s", 45), ("1d12h", 129_600), (" 1h0m1s ", 3_601), ("366d", 31_622_400)],
)
def test_a_duration_is_read(text, seconds):
    assert parse_duration(text, "--time-limit") == seconds


@pytest.mark.parametrize(
    "text", ["", "0s", "3", "3.5h", "-1h", "30m3h", "3 h", "1h1h", "367d", "9999999999s", "\u0663h"]
)
def test_what_is_no_duration_is_one_line(text):
    with pytest.raises(InputError, match=r"--time-limit '.*': write days, hours, minutes and seconds as in 3h30m"):
        parse_duration(text, "--time-limit")
