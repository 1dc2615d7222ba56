"""How checks are run, waived and turned into tests, whatever they check."""

from __future__ import annotations

from typing import ClassVar

import pytest

from mimbench.contract import View, check_names
from mimbench.errors import InputError, NotSupported
from mimbench.testing.checks import BadOptions, Failure, Skip, Suite, check, parametrize_checks
from mimbench.testing.datasets import DATASET_CHECKS
from mimbench.testing.encoders import ENCODER_CHECKS
from mimbench.testing.methods import METHOD_CHECKS
from mimbench.testing.tasks import TASK_CHECKS


class Plugin:
    """A plugin whose functions the checks call."""

    waivers: ClassVar[dict[str, str]] = {}

    def first(self):
        return None

    def second(self):
        return None


class Subject:
    kind = "plugin"

    def __init__(self, plugin):
        self.plugin = plugin


@check("first")
def first_works(subject):
    subject.plugin().first()


@check("second", needs=["first_works"])
def second_works(subject):
    subject.plugin().second()


@check(needs=["second_works"])
def both_work(subject):
    """Passes."""


CHECKS = (first_works, second_works, both_work)


def statuses(plugin) -> list[str]:
    return [result.status for result in Suite(Subject(plugin), CHECKS).run()]


def test_all_pass():
    assert statuses(Plugin) == ["passed"] * 3


def test_a_failure_blocks_what_needs_it():
    class Broken(Plugin):
        def first(self):
            raise Failure("it is wrong; mend it")

    suite = Suite(Subject(Broken), CHECKS)
    last = suite.result("both_work")
    assert last.status == "skipped"
    assert last.message == "needs the check first_works, which failed"
    failed = suite.result("first_works")
    assert failed.status == "failed"
    assert failed.message.startswith("it is wrong; mend it (")
    assert failed.message.endswith("in Broken.first)")
    assert f"test_checks.py:{Broken.first.__code__.co_firstlineno} " in failed.message


def test_an_error_of_the_plugin_names_its_line():
    class Broken(Plugin):
        def second(self):
            return {}["teacher"]

    message = Suite(Subject(Broken), CHECKS).result("second_works").message
    line = Broken.second.__code__.co_firstlineno + 1
    assert message.startswith("KeyError: 'teacher' (")
    assert f"test_checks.py:{line} in second); correct that line" in message


def test_bad_options_are_raised_to_the_caller():
    class Small(Plugin):
        def first(self):
            raise BadOptions("the options do not suit it")

    with pytest.raises(InputError, match="do not suit it"):
        Suite(Subject(Small), CHECKS).run()


@pytest.mark.parametrize("error", [Skip, NotSupported])
def test_a_skipped_check_blocks_nothing(error):
    class Partial(Plugin):
        def first(self):
            raise error("it has none")

    assert statuses(Partial) == ["skipped", "passed", "passed"]
    assert Suite(Subject(Partial), CHECKS).result("first_works").message == "it has none"


def test_an_option_that_pydantic_refuses_is_one_clear_line():
    class Blurred(Plugin):
        def first(self):
            View(image_size=8, blur=3.0)

    result = Suite(Subject(Blurred), CHECKS).result("first_works")
    assert result.message.startswith("View.blur = 3.0: it must be less than or equal to 1 (")
    assert "validation error" not in result.message


def test_a_waiver_allows_a_failure_with_its_reason():
    class Mixing(Plugin):
        waivers: ClassVar = {"first_works": "it mixes images"}

        def first(self):
            raise Failure("wrong")

    assert statuses(Mixing) == ["waived", "passed", "passed"]
    assert Suite(Subject(Mixing), CHECKS).result("first_works").message == "it mixes images"


def test_a_waived_check_that_passes_is_a_failure():
    class Outdated(Plugin):
        waivers: ClassVar = {"second_works": "it was slow"}

    result = Suite(Subject(Outdated), CHECKS).result("second_works")
    assert result.status == "failed"
    assert "it passes, and is waived; remove the waiver 'it was slow'" in result.message


@pytest.mark.parametrize(
    ("waivers", "error"),
    [
        ({"third_works": "no"}, "class Waiving: waivers: 'third_works' is no check of a plugin; did you mean"),
        ({"first_works": " "}, "'first_works' has no reason"),
    ],
)
def test_waivers_without_a_check_or_a_reason_are_refused(waivers, error):
    Waiving = type("Waiving", (Plugin,), {"waivers": waivers})
    with pytest.raises(InputError, match=error):
        Suite(Subject(Waiving), CHECKS)


def test_a_check_runs_once():
    class Counting(Plugin):
        calls = 0

        def first(self):
            Counting.calls += 1

    suite = Suite(Subject(Counting), CHECKS)
    assert suite.run() == suite.run()
    assert Counting.calls == 1


class Mixed(Plugin):
    """One result of each kind."""

    waivers: ClassVar = {"first_works": "it mixes images"}

    def first(self):
        raise Failure("wrong")

    def second(self):
        raise Skip("it has no second")


@parametrize_checks(Suite(Subject(Mixed), CHECKS))
def test_one_test_per_check(check):
    check()


def test_a_failed_check_is_a_failed_test():
    class Broken(Plugin):
        def first(self):
            raise Failure("it is wrong; mend it")

    cases = parametrize_checks(Suite(Subject(Broken), CHECKS)).args[1]
    assert [case.id for case in cases] == ["first_works", "second_works", "both_work"]
    with pytest.raises(pytest.fail.Exception, match="it is wrong; mend it"):
        cases[0].values[0]()
    with pytest.raises(pytest.skip.Exception, match="needs the check first_works"):
        cases[1].values[0]()


def test_a_waived_check_is_an_expected_failure():
    with pytest.raises(pytest.xfail.Exception, match="it mixes images"):
        parametrize_checks(Suite(Subject(Mixed), CHECKS)).args[1][0].values[0]()


def test_the_contract_names_the_checks_of_each_kind():
    suites = {"method": METHOD_CHECKS, "task": TASK_CHECKS, "dataset": DATASET_CHECKS, "encoder": ENCODER_CHECKS}
    assert {kind: tuple(one.name for one in checks) for kind, checks in suites.items()} == dict(check_names.CHECKS)
