"""Named checks of a plugin: how they are declared, run and waived, and how they become tests.

A check is a function that gets a subject (the plugin with its options) and returns nothing. It raises `Failure` if the
plugin is wrong, and `Skip` if the check does not apply to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mimbench.advice import describe_invalid
from mimbench.contract.check import find_wrong_waiver
from mimbench.errors import InputError, MimbenchError, NotSupported
from mimbench.testing.places import definition, raising_line

if TYPE_CHECKING:
    import pytest

Status = Literal["passed", "failed", "waived", "skipped"]


class Failure(Exception):
    """A plugin does not have the property that a check is about. Its text: the problem; the remedy."""


class Skip(Exception):
    """A check does not apply to a plugin. Its text is the reason."""


class BadOptions(InputError):
    """The options do not suit the plugin or the small sizes of its check, or its data is missing: no fault of its code.

    A suite raises it to its caller.
    """


@dataclass(frozen=True)
class Result:
    """Result of one check.

    Attributes:
        name: of the check.
        status: "waived" if it failed and the plugin has a waiver for it.
        message: of a failure: the problem, the remedy, and file:line of the plugin. Of a waived or skipped check: the
            reason. If it passed: what was measured, or empty.
    """

    name: str
    status: Status
    message: str = ""


class Subject(Protocol):
    """A plugin under check, with what its checks share."""

    kind: str
    """"method", "task", "dataset" or "encoder"."""
    plugin: type[Any]


@dataclass(frozen=True)
class Check:
    """A named check.

    Attributes:
        function: raises Failure or Skip, or returns a note on what was measured, or None.
        place: name of the plugin's function that a failure points to; empty for the class.
        needs: names of earlier checks. If one of them fails, this one is skipped, since it would fail as well.
    """

    function: Callable[[Any], str | None]
    place: str = ""
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.function.__name__


def check(place: str = "", *, needs: Iterable[str] = ()) -> Callable[[Callable[[Any], str | None]], Check]:
    """Declare a function as a check; the arguments are those of Check."""
    return lambda function: Check(function, place, tuple(needs))


class Suite:
    """The checks of one subject. Each one runs at most once, and is run when its result is first needed.

    A plugin waives a check with a class attribute `waivers`, {name of the check: reason}. Waivers are strict: a waived
    check that passes is a failure.
    """

    def __init__(self, subject: Subject, checks: Iterable[Check]) -> None:
        """Prepare the checks; none runs yet.

        Raises:
            InputError: a waiver names no check, or has no reason.
        """
        self.subject = subject
        self._checks = {one.name: one for one in checks}
        self._results: dict[str, Result] = {}
        self._waivers: Mapping[str, str] = subject.plugin.waivers
        if problem := find_wrong_waiver(subject.kind, self._waivers, self._checks):
            raise InputError(f"class {subject.plugin.__name__}: {problem}")

    @property
    def names(self) -> list[str]:
        return list(self._checks)

    def run(self) -> list[Result]:
        """Run all checks, in order.

        Raises:
            InputError: the options do not suit the plugin, or its data is missing.
        """
        return [self.result(name) for name in self._checks]

    def result(self, name: str) -> Result:
        """Run one check, and the checks that it needs; or return the earlier result."""
        if name not in self._results:
            self._results[name] = self._blocked(self._checks[name]) or self._judge(self._checks[name])
        return self._results[name]

    def _blocked(self, one: Check) -> Result | None:
        for needed in one.needs:
            result = self.result(needed)
            if result.status == "failed":
                return Result(one.name, "skipped", f"{_BLOCKED}{needed}, which failed")
            if result.message.startswith(_BLOCKED):
                return Result(one.name, "skipped", result.message)
        return None

    def _judge(self, one: Check) -> Result:
        plugin, reason = self.subject.plugin, self._waivers.get(one.name)
        try:
            note = one.function(self.subject)
        except (Skip, NotSupported) as skipped:
            return Result(one.name, "skipped", _line(skipped))
        except Failure as failure:
            message = f"{_line(failure)} ({definition(plugin, one.place)})"
        except BadOptions:
            raise
        except Exception as error:  # whatever the plugin's code raises
            where = raising_line(error, plugin) or definition(plugin, one.place)
            message = f"{describe_invalid(error) or f'{type(error).__name__}: {_line(error)}'} ({where})"
            if not isinstance(error, MimbenchError):  # whose text has a remedy
                message = f"{message}; correct that line, or what calls it"
        else:
            if reason is None:
                return Result(one.name, "passed", note or "")
            where = definition(plugin, "waivers")
            return Result(one.name, "failed", f"it passes, and is waived; remove the waiver {reason!r} ({where})")
        return Result(one.name, "failed", message) if reason is None else Result(one.name, "waived", reason)


_BLOCKED = "needs the check "


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else f"{text[:397]}..."


def parametrize_checks(suite: Suite) -> pytest.MarkDecorator:
    """One test per check, for a test function that calls its argument `check`.

        @parametrize_checks(method_suite(MyMethod, {"mask_ratio": 0.5}))
        def test_my_method(check):
            check()

    A skipped check is a skipped test, and a waived check is an expected failure.
    """
    import pytest

    cases = [pytest.param(functools.partial(_report, suite, name), id=name) for name in suite.names]
    return pytest.mark.parametrize("check", cases)


def _report(suite: Suite, name: str) -> None:
    import pytest

    result = suite.result(name)
    if result.status == "failed":
        pytest.fail(result.message, pytrace=False)
    if result.status == "skipped":
        pytest.skip(result.message)
    if result.status == "waived":
        pytest.xfail(result.message)
