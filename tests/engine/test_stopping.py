"""Signals that ask a command to stop."""

from __future__ import annotations

import os
import signal
import time

import pytest
import typer

from mimbench.cli.run import _one_line_when_stopped
from mimbench.engine.stopping import stop_at_once, stop_when_convenient
from mimbench.errors import UNFINISHED, Interrupted


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_nobody_asked_for_is_sent_again(number):
    def note_and_ignore():
        with stop_when_convenient() as request:
            os.kill(os.getpid(), number)
            assert request.signal == number

    with pytest.raises(Interrupted) as stopped, stop_at_once():
        note_and_ignore()
    assert stopped.value.signal == number
    assert stopped.value.exit_code == (UNFINISHED if number == signal.SIGUSR1 else 128 + number)


def test_a_time_limit_ends_a_command_with_one_line(capfd):
    with pytest.raises(typer.Exit) as ended, _one_line_when_stopped(False, 0.1):
        time.sleep(5)
    assert ended.value.exit_code == UNFINISHED == 75
    assert capfd.readouterr().err.startswith("mimbench: stopped by --time-limit; finished pretrainings and records")


def test_a_command_that_ends_in_time_is_left_alone():
    with stop_at_once(0.1):
        pass
    time.sleep(0.2)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
