"""Figures are fit for a paper: the same style for a method everywhere, no text cut or covered, files that are sound."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from helpers import plot_records as made
from mimbench import registry
from mimbench.errors import InputError
from mimbench.report.plots.kinds import figure, figures, plot_kinds
from mimbench.report.plots.sheet import image, save
from mimbench.report.plots.source import NothingToPlot, Options, Source
from mimbench.report.plots.style import clean, method_label, method_style, wrap

STYLES = {name: method_style(name) for name in registry.methods.names()}
NASTY = "a $x^2$ \\frac{1}{2} <script>alert(1)</script> of-a-method-whose-name-does-not-end\n\x07"


@pytest.fixture(scope="module")
def source(record, tmp_path_factory):
    return Source.read(made.stored(made.everything(record, seeds=2), tmp_path_factory.mktemp("results") / "runs"))


@pytest.fixture
def drawn_texts(monkeypatch):
    """fig -> [(text, its box)] of all that is really drawn, in pixels."""

    def draw_and_collect(fig):
        texts = []
        draw = Text.draw

        def noted(self, renderer, *args, **kwargs):
            if self.get_visible() and self.get_text().strip():
                texts.append((self, self.get_window_extent(renderer)))
            return draw(self, renderer, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", noted)
            fig.canvas.draw()
        return texts

    return draw_and_collect


def overlap(one, other, slack=2.0):
    return (
        min(one.x1, other.x1) - max(one.x0, other.x0) > slack and min(one.y1, other.y1) - max(one.y0, other.y0) > slack
    )


def faults(fig, texts):
    """What is cut off, and what covers what."""
    sheet, problems = fig.bbox, []
    for text, box in texts:
        if box.x0 < sheet.x0 - 0.5 or box.x1 > sheet.x1 + 0.5 or box.y0 < sheet.y0 - 0.5 or box.y1 > sheet.y1 + 0.5:
            problems.append(f"cut: {text.get_text()!r} {box} of {sheet}")
        # What axes write into themselves, such as the numbers of a heat map, belongs there.
        others = [axes for axes in fig.axes if text not in axes.texts]
        problems += [f"over axes: {text.get_text()!r}" for axes in others if overlap(box, axes.get_window_extent())]
    for (one, box), (other, its) in itertools.combinations(texts, 2):
        if overlap(box, its):
            problems.append(f"{one.get_text()!r} over {other.get_text()!r}")
    for legend in fig.legends:
        problems += [
            "legend over axes" for axes in fig.axes if overlap(legend.get_window_extent(), axes.get_window_extent())
        ]
    return problems


REFERENCE = Path(__file__).parents[3] / "results" / "reference"
SHOW_BASELINE = ("bars", "ablation", "epochs")
NOT_MADE_UP = (
    *("generated", "segmentations", "reconstructions", "confusion"),
    *("heatmap", "label-efficiency", "classes", "precision-recall", "predictors", "depths"),
    *("roc", "exposure"),
)
"""Kinds that the made-up records of `source` hold nothing for."""


@pytest.fixture(scope="module")
def reference():
    """Records of a real grid: their names and metrics are longer than those that are made up."""
    return Source.read(REFERENCE)


def assert_fit(kind, source, options, drawn_texts):
    """Of each of its parts."""
    drawn = figures(kind, source, options)
    for fig in drawn:
        texts = drawn_texts(fig)
        assert len(texts) > 1
        assert faults(fig, texts) == []
        assert fig.get_figwidth() == options.width
    return drawn


@pytest.mark.parametrize("width", [3.4, 7.0])
@pytest.mark.parametrize("baseline", [None, "random-init"])
@pytest.mark.parametrize("kind", [kind for kind in plot_kinds() if kind not in NOT_MADE_UP])
def test_nothing_is_cut_or_covered(kind, baseline, width, source, drawn_texts):
    if baseline and kind not in SHOW_BASELINE:
        with pytest.raises(InputError, match="shows no baseline"):
            figures(kind, source, Options(baseline=baseline))
        return
    tasks = ("linear-probe", "finetune") if kind == "cost" else ()
    assert_fit(kind, source, Options(width=width, baseline=baseline, tasks=tasks), drawn_texts)


@pytest.mark.parametrize("width", [3.25, 6.875])
def test_heat_maps_classes_and_precision_are_not_cut_either(width, record, drawn_texts):
    pairs = [
        made.one(record, "simmim", varied={"method.mask_ratio": a, "method.mask_patch_size": b})
        for a in made.RATIOS
        for b in (4, 8, 16, 32)
    ]
    table = {"boxes": {f"class {place}": {"AP": 40.0 + place} for place in range(30)}}
    detections = [
        made.one(
            record,
            method,
            task="detection",
            metrics={"AP": 30.0},
            details={"per_class": table},
            curves={"precision_by_recall": [100.0, 50.0, 0.0]},
        )
        for method in made.METHODS
    ]
    source = Source.from_records([*pairs, *detections])
    for kind in ("heatmap", "classes", "precision-recall"):
        assert_fit(kind, source, Options(width=width), drawn_texts)


@pytest.mark.parametrize(("baseline", "width"), [(None, 3.4), (None, 7.0), ("random-init", 3.4)])
def test_nothing_of_the_reference_is_cut_or_covered(baseline, width, reference, drawn_texts):
    drawn_kinds = set()
    options = Options(width=width, baseline=baseline)
    for kind in SHOW_BASELINE if baseline else plot_kinds():
        try:
            assert_fit(kind, reference, options, drawn_texts)
        except NothingToPlot:
            continue
        drawn_kinds.add(kind)
    rankings, of_files = {"critical-difference", "win-rates"}, {"confusion", "reconstructions", "detections"}
    all_kinds = {"bars", "epochs", "cost", "loss", "seeds", "label-efficiency", "classes"} | rankings | of_files
    assert drawn_kinds >= ({"bars", "epochs"} if baseline else all_kinds)


def test_the_label_of_a_difference_is_whole(reference, drawn_texts):
    options = Options(baseline="random-init", tasks=("linear-probe",))
    (fig,) = assert_fit("bars", reference, options, drawn_texts)
    assert (
        fig.axes[0].get_xlabel().replace("-\n", "-").replace("\n", " ")
        == "Top-1 accuracy: difference from random-init (points)"
    )


def test_the_check_can_fail(source, drawn_texts):
    fig = figure("layers", source)
    fig.text(0.99, 0.5, "far too long for this place")
    fig.text(0.5, 0.5, "in the way")
    problems = faults(fig, drawn_texts(fig))
    assert any(fault.startswith("cut: 'far") for fault in problems)
    assert "over axes: 'in the way'" in problems


@pytest.mark.parametrize("kind", ["bars", "ablation", "cost", "seeds", "layers", "loss"])
def test_text_of_records_is_drawn_as_it_is(kind, record, drawn_texts):
    records = [
        *made.ablation(record, NASTY, 2, dataset={"name": NASTY, "version": "f"}, task=NASTY),
        *made.layered(record, 2),
        *made.scores(record, [NASTY, "数据-$-é"], [NASTY, "knn"], 2),
    ]
    fig = figure(kind, Source.from_records(records), Options(baseline=None))
    texts = drawn_texts(fig)
    assert faults(fig, texts) == []
    assert not any(text.get_parse_math() for text, _ in texts)
    assert any("$x^2$" in text.get_text() for text, _ in texts) or kind == "layers"
    content = image(fig, "svg")
    assert b"<script" not in content
    ElementTree.fromstring(content)


def test_a_method_looks_the_same_everywhere(record):
    few = figure("bars", Source.from_records(made.scores(record, ["mae", "sharpen"], ["knn"], 1)))
    many = figure(
        "bars",
        Source.from_records(made.scores(record, [*STYLES, "sharpen", "aaa", "zzz"], ["knn"], 1)),
        Options(width=7),
    )

    def colours(fig):
        bars = [bars for axes in fig.axes for bars in axes.containers]
        return {each.get_label(): to_hex(each.patches[0].get_facecolor()) for each in bars}

    colours_of_many = colours(many)
    assert {name: colours_of_many[name] for name in colours(few)} == colours(few)
    assert {name: colours_of_many[method_label(name)] for name in STYLES} == {
        name: style.colour for name, style in STYLES.items()
    }
    lines = figure("seeds", Source.from_records(made.scores(record, ["mae", "sharpen"], ["knn"], 2)))
    drawn = {line.get_label(): (to_hex(line.get_color()), line.get_marker()) for line in lines.axes[0].lines}
    for name in ("mae", "sharpen"):
        assert drawn[method_label(name)] == (method_style(name).colour, method_style(name).marker)


def test_controls_are_grey_and_no_two_methods_share_a_style():
    for name in ("random-init", "supervised", "autoencoder"):
        red, green, blue = (STYLES[name].colour[at : at + 2] for at in (1, 3, 5))
        assert red == green == blue
    assert len({style.colour for style in STYLES.values()}) == len(STYLES)
    others = {method_style(f"third-party-{number}") for number in range(200)}
    assert len(others) > 100
    assert not {style.colour for style in others} & {style.colour for style in STYLES.values()}
    assert all(style.hatch for style in others)


def test_a_methods_main_setting_keeps_its_colour(source):
    bars = [bars for axes in figure("bars", source).axes for bars in axes.containers]
    shades = {b.get_label(): to_hex(b.patches[0].get_facecolor()) for b in bars if hasattr(b, "patches")}
    of_simmim = {label: shade for label, shade in shades.items() if label.startswith("SimMIM")}
    assert of_simmim["SimMIM, mask_ratio=0.6"] == STYLES["simmim"].colour
    assert len(set(of_simmim.values())) == len(of_simmim) == len(made.RATIOS)


def test_files_are_sound_and_the_same_on_every_call(source, tmp_path):
    fig = figure("layers", source, Options(width=3.4))
    png = save(fig, tmp_path / "a" / "b.PNG")
    with Image.open(png) as picture:
        assert picture.width == 1020
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    pdf = image(fig, "pdf")
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    svg = image(fig, "svg").decode()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "<text" in svg  # which a reader selects and a journal edits
    assert "One seed" not in svg.split("<metadata>")[0]
    assert not re.findall(r"https?://(?!www\.w3\.org|purl\.org|creativecommons\.org|matplotlib\.org)", svg)
    again = figure("layers", source)
    assert image(again, "svg").decode() == svg
    assert image(again, "pdf") == pdf


def test_drawing_leaves_matplotlib_as_it_was(source):
    import matplotlib

    before = dict(matplotlib.rcParams)
    image(figure("rebuilt", source), "svg")
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_pictures_are_those_of_the_records_and_nothing_else_on_the_disk(record, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (10, 10), "red").save(secret)
    records = made.detected(record)
    outside = made.one(record, "mae", task="detection", metrics={"AP": 1.0}, artifacts={"predictions": "../secret.png"})
    folder = made.stored([*records], tmp_path / "runs")
    made.write_record(folder / "records" / "outside.json", outside)
    (folder / "artifacts" / "simmim-0" / "predictions.png").write_bytes(b"no picture")
    fig = figure("detections", Source.read(folder))
    assert [axes.get_title(loc="left").split(",")[0] for axes in fig.axes] == ["Random init"]
    assert fig.axes[0].images[0].get_array().shape[:2] == (160, 400)
    assert "Missing or damaged pictures: " in fig.get_label()
    (folder / "artifacts" / "random-init-0" / "predictions.png").unlink()
    with pytest.raises(NothingToPlot, match="copy the folder `artifacts` along with `records`"):
        figure("detections", Source.read(folder))


def test_text_is_cleaned_and_wrapped():
    assert clean("a\n\tb\x00\ud800") == "a b\ufffd\ufffd"
    assert wrap("x" * 100, 10, 2) == "xxxxxxxxxx\nxxxxxxxxx…"
    assert wrap("", 10) == "-"


def test_importing_the_command_draws_nothing_in():
    code = (
        "import sys, mimbench.cli; print([m for m in ('matplotlib', 'pandas', 'seaborn', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
