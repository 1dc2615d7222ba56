"""Signals that ask a command to stop."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mimbench.engine.stopping import stop_at_once
from mimbench.errors import Interrupted


class SignalledAtItsEnd:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_comes_while_python_can_raise_nothing_is_not_lost(capfd):
    def end_and_wait():
        ended = SignalledAtItsEnd()
        del ended
        time.sleep(5)

    with pytest.raises(Interrupted) as stopped, stop_at_once():
        end_and_wait()
    assert stopped.value.signal == signal.SIGTERM
    assert "Traceback" not in capfd.readouterr().err
