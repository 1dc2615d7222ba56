"""Display files: complete for the built-in plugins, read without an import of them, refused in one line if damaged."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mimbench import display, registry
from mimbench.errors import InputError

ROOT = Path(__file__).parents[1]
FILLED_MARKERS = "ov^<>8sp*hHDdPX"
"""Those of matplotlib whose name is one character. Others vanish, since markers have white edges."""


def test_every_built_in_method_has_a_label_and_a_distinct_style():
    displays = [display.describe_method(name) for name in registry.methods.names()]
    for of_each in ("label", "colour"):
        values = [getattr(each, of_each) for each in displays]
        assert all(values)
        assert len(set(values)) == len(values)
    uses = Counter(each.marker for each in displays)
    assert set(uses) <= set(FILLED_MARKERS)
    assert max(uses.values()) <= 2  # matplotlib has 15 filled markers, and there are more methods


def test_controls_are_the_methods_that_predict_nothing_masked():
    controls = {name for name in registry.methods.names() if display.describe_method(name).is_control}
    assert controls == {"random-init", "supervised", "autoencoder"}
    ranked = sorted([*registry.methods.names(), "sharpen", "a-new-one"], key=display.drawing_rank)
    assert ranked[:6] == ["random-init", "autoencoder", "supervised", "external", "simmim", "simmim-pixel"]
    assert ranked[-2:] == ["a-new-one", "sharpen"]


@pytest.mark.parametrize("name", registry.tasks.names())
def test_every_built_in_metric_has_a_label(name):
    task = registry.tasks.load(name)
    labels = [display.describe_metric(name, metric.name).label for metric in task.metrics]
    assert not set(labels) & {metric.name for metric in task.metrics}
    assert len(set(labels)) == len(labels)
    for table in display.describe_task(name).relative_errors.values():
        assert table.clean in {metric.name for metric in task.metrics}


def test_the_files_describe_registered_plugins_only():
    for folder in ("mimbench", "methods", "tasks"):
        file = display.read_display(ROOT / folder / display.FILE)
        assert set(file.methods) <= set(registry.methods.names())
        assert set(file.tasks) <= set(registry.tasks.names())
        assert set(file.datasets) <= set(registry.datasets.names())


def test_a_star_matches_any_text():
    assert display.describe_metric("knn", "top1_k15").label.replace("\u00a0", " ") == "Top-1 accuracy, k = 15"
    assert display.describe_metric("knn", "top1").label == "Top-1 accuracy"
    assert display.describe_metric("knn", "top1_k").label == "top1_k"


def test_what_no_file_describes_goes_by_its_name():
    assert display.describe_method("my-method") == display.MethodDisplay()
    assert display.describe_metric("my-task", "my_metric") == display.MetricDisplay("my_metric")
    assert display.paper_name("my-dataset") == "my-dataset"
    assert display.paper_name("imagenet") == "ImageNet-1K"


def test_a_headline_is_more_than_the_primary_metric():
    assert display.describe_metric("detection", "AP50").is_headline
    assert not display.describe_metric("detection", "AP75").is_headline


def test_commands_name_the_task_whose_curves_or_pictures_are_drawn():
    assert display.command_for("layers") == "mimbench run --method METHOD --task linear-probe --set task.layers=all"
    assert display.command_for("detections") == "mimbench run --method METHOD --task detection"
    assert display.command_for("bars") == "mimbench run --method METHOD --task TASK"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[methods", "not valid TOML"),
        ("[method.a]", "unknown key 'method'; did you mean 'methods'?"),
        ("methods = 3", "[methods]: must be a table, not 3"),
        ("methods.a = 3", "[methods.a]: must be a table, not 3"),
        ("[methods.a]\ncolor = '#000000'", "[methods.a]: unknown key 'color'; did you mean 'colour'?"),
        ("[methods.a]\ncolour = 'blue'", "colour must be a colour such as \"#0173b2\", not 'blue'"),
        ("[methods.a]\ncolour = 3", 'colour must be a colour such as "#0173b2", not 3'),
        ("[methods.a]\nmarker = ''", "marker must be one character, not ''"),
        ("[methods.a]\nis_control = 1", "is_control must be true or false, not 1"),
        ("[methods.a]\nlabel = 1", "[methods.a]: label must be text, not 1"),
        ("[datasets.a]\ntest_images = true", "test_images must be a whole number, not True"),
        ("[tasks.a]\nimage_size = 'large'", 'image_size must be "recipe" or "protocol", not \'large\''),
        ("[tasks.a]\nmetrics = 1", "metrics must be a table, not 1"),
        ("[tasks.a.metrics]\nAP = 'Box AP'", "[tasks.a] metrics.AP: must be a table, not 'Box AP'"),
        ("[tasks.a.metrics.AP]\nis_headline = true", "[tasks.a] metrics.AP: label is missing"),
        ("[tasks.a.reference_curves]\nmean = 'wavy'", 'reference_curves must be a table of "dotted" or "dashed"'),
        ("[tasks.a.reference_curves]\nmean = ['dotted']", 'reference_curves must be a table of "dotted" or "dashed"'),
        ("[tasks.a.plots]\nlayers = 1", "plots must be a table of texts"),
        ("[tasks.a.curves.roc]\nx = 'fpr'", "curves.roc: y is missing"),
        ("[tasks.a.curves.roc]\nlog_x = 'yes'", "log_x must be true or false, not 'yes'"),
        ("[tasks.a.relative_errors.mce]\ntitle = 'mCE'", "relative_errors.mce: curves is missing"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(text, words, tmp_path):
    path = tmp_path / display.FILE
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        display.read_display(path)
    message = str(error.value)
    assert message.startswith(f"display file {path}")
    assert words in message
    assert "\n" not in message


def test_reading_display_files_imports_no_plugin():
    code = (
        "import sys; from mimbench import display\n"
        "assert display.describe_metric('detection', 'AP50').is_headline\n"
        "assert display.describe_method('mae').label == 'MAE'\n"
        "heavy = ('torch', 'timm', 'mmengine', 'mimbench_', 'mimbench.contract', 'pydantic')\n"
        "print([module for module in sys.modules if module.startswith(heavy)])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
