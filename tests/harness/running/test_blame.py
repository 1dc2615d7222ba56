"""Whose code raised an error."""

from __future__ import annotations

import sys

import pytest

from helpers.refusals import refused
from mimbench import registry
from mimbench.harness.running.blame import describe_culprit

THEIRS = """
import torch
from mimbench.contract import Method
from their_helpers import helped

class Theirs(Method):
    name, version = "theirs", "1"
    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.head = self.decoder
    def sample_mask(self, batch, generator): return {}["teacher"]
    def target(self, images): return helped(images)
    def predict(self, images, mask): return self.decoder(images)
    def loss(self, prediction, target, mask): return torch.ones(2) + torch.ones(3)

class Others(Theirs):
    name = "others"
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "__init__.py").write_text("")
    (tmp_path / "their_package" / "method.py").write_text(THEIRS.replace("their_helpers", "their_package.helpers"))
    (tmp_path / "their_package" / "helpers.py").write_text("def helped(images):\n    return 1 / 0\n")
    from their_package.method import Others, Theirs

    monkeypatch.setitem(registry.methods.replacements, "theirs", Theirs)
    monkeypatch.setitem(registry.methods.replacements, "others", Others)
    yield {cls: cls.__new__(cls) for cls in (Theirs, Others)}
    for name in [name for name in sys.modules if name.startswith("their_package")]:
        del sys.modules[name]


def blamed(call) -> str:
    try:
        call()
    except Exception as error:
        return describe_culprit(error)
    raise AssertionError("nothing was raised")


def test_the_innermost_line_of_a_plugin_is_named_with_plugin_and_package(theirs):
    one, other = theirs.values()
    assert blamed(lambda: one.sample_mask(1, None)) == (
        "method 'theirs' of no installed package, their_package/method.py:11 in sample_mask"
    )
    assert "method 'others' of" in blamed(lambda: other.sample_mask(1, None))
    # torch's own frames lie further in.
    one_built = object.__new__(type(one))
    assert blamed(lambda: one_built.loss(None, None, None)).endswith("their_package/method.py:14 in loss")


def test_other_modules_of_the_package_count_as_the_plugin_s(theirs):
    owner = blamed(lambda: next(iter(theirs.values())).target(None))
    assert owner == "method 'theirs' of no installed package, their_package/helpers.py:2 in helped"


def test_code_that_is_no_plugin_s_is_not_blamed():
    assert blamed(lambda: {}["a"]) == ""


def test_a_plugin_that_ships_is_blamed_only_if_no_other_called_it(theirs, monkeypatch):
    vit = registry.encoders.load("vit")
    broken = object.__new__(vit)
    assert blamed(lambda: vit.embed(broken, None)).startswith("encoder 'vit' of mimbench ")
    monkeypatch.setattr(sys.modules["their_package.helpers"], "broken", broken, raising=False)
    source = "def helped(images):\n    return broken.embed(images)\n"
    exec(compile(source, "their_package/helpers.py", "exec"), vars(sys.modules["their_package.helpers"]))
    helped = sys.modules["their_package.helpers"].helped
    assert "their_package/helpers.py:2 in helped" in blamed(lambda: helped(None))


def test_a_run_s_failure_names_plugin_and_line(bench):
    bench.fails = {("toy", 0): ValueError("no")}
    ((_, reason),) = bench.run().failures
    assert reason.startswith("ValueError: no (task 'toy' of no installed package, helpers/toy_plugins.py:")
    assert reason.endswith(" in run)")


def test_a_plugin_that_raises_while_it_is_built_is_one_line(theirs, quick):
    arguments = ("run", "--method", "theirs", "--task", "knn", "--recipe", "smoke", "--dry-run")
    words = ("'decoder'", "method 'theirs' of no installed package", "their_package/method.py:10 in __init__")
    refused(quick(*arguments), *words)


def test_the_whole_traceback_is_to_be_had(theirs, quick, monkeypatch):
    monkeypatch.setenv("MIMBENCH_DEBUG", "1")
    with pytest.raises(AttributeError, match="decoder"):
        quick("run", "--method", "theirs", "--task", "knn", "--recipe", "smoke", "--dry-run")
