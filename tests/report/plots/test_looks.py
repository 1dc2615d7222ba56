"""One setting looks the same in every figure of a results folder, and what is drawn is called by its name."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

from helpers import plot_records as made
from mimbench import registry
from mimbench.report.plots.kinds import figure, figures
from mimbench.report.plots.sheet import HIGHEST
from mimbench.report.plots.source import Options, Source
from mimbench.report.plots.style import device_label, method_style, metric_label
from mimbench.store.reading import read_all
from mimbench.store.record import Cost

REFERENCE = Path(__file__).parents[3] / "results" / "reference"


@pytest.fixture(scope="module")
def reference():
    """The records of one encoder, whose name no label needs."""
    return Source([(file, body) for file, body in read_all(REFERENCE) if body["encoder"]["name"] == "vit"])


def styles(fig):
    """{label: its colours and dashes}, of all bars, lines and marks of settings."""
    colours: dict[str, set] = {}
    for axes in fig.axes:
        for bars in axes.containers:
            if hasattr(bars, "patches") and bars.patches:
                colours.setdefault(bars.get_label(), set()).add(to_hex(bars.patches[0].get_facecolor()))
        for line in axes.lines:
            colours.setdefault(line.get_label(), set()).add(to_hex(line.get_color()))
    return {label: shades for label, shades in colours.items() if label.startswith("SimMIM")}


def several_settings(record):
    """Of simmim 0.3, 0.6 and 0.8: equally many linear probes, and knn of the plain one alone."""
    ratios = [r for r in made.ablation(record) if r.varied.get("method.mask_ratio", 0.6) != 0.4]
    layered = [r.model_copy(update={"curves": {"top1_by_layer": [1.0 + r.seed, 2.0]}}) for r in ratios]
    return [*layered, *made.scores(record, ["simmim", "mae"], ["knn"], 3)]


@pytest.mark.parametrize("records", ["made", "reference"])
def test_a_setting_has_one_colour_in_every_kind_and_under_every_filter(records, record, reference):
    source = reference if records == "reference" else Source.from_records(several_settings(record))
    baseline = "random-init" if records == "reference" else "mae"
    choices = [
        ("bars", Options()),
        ("bars", Options(tasks=("linear-probe",))),
        ("bars", Options(tasks=("linear-probe",), methods=("simmim",))),
        ("bars", Options(tasks=("knn",), baseline=baseline)),
        ("cost", Options()),
        ("seeds", Options(tasks=("linear-probe",))),
        ("loss", Options()),
        *([("layers", Options())] if records == "made" else []),
    ]
    colours: dict[str, set] = {}
    for kind, options in choices:
        for label, shades in styles(figure(kind, source, options)).items():
            colours.setdefault(label, set()).update(shades)
    main = colours.pop("SimMIM", set())  # where it is alone, its setting is not told
    assert colours["SimMIM, mask_ratio=0.6"] == main == {"#0173b2"}
    assert all(len(shades) == 1 for shades in colours.values()), colours
    assert len(set.union(*colours.values())) == len(colours) > 2


def test_a_setting_has_one_dash_in_every_kind(record):
    source = Source.from_records(several_settings(record))
    dashes = {
        kind: {line.get_label(): line.get_linestyle() for axes in figure(kind, source).axes for line in axes.lines}
        for kind in ("loss", "layers")
    }
    of_simmim = {label: dash for label, dash in dashes["loss"].items() if label.startswith("SimMIM,")}
    assert of_simmim == {label: dash for label, dash in dashes["layers"].items() if label.startswith("SimMIM,")}
    assert of_simmim["SimMIM, mask_ratio=0.6"] == "-"
    assert len(set(of_simmim.values())) == 3


def test_a_setting_that_is_not_the_main_one_is_named_even_if_it_is_the_only_one(record):
    records = [*made.ablation(record), made.one(record, "simmim", 0, "knn", varied={"method.mask_ratio": 0.2})]
    records += made.scores(record, ["simmim"], ["finetune"], 3)
    shades = styles(figure("bars", Source.from_records(records), Options(tasks=("knn",))))
    assert list(shades) == ["SimMIM, mask_ratio=0.2"]
    assert shades["SimMIM, mask_ratio=0.2"] != {"#0173b2"}


def test_curves_over_a_setting_keep_the_main_settings_colour(reference):
    for kind in ("ablation", "epochs"):
        assert styles(figure(kind, reference))["SimMIM"] == {"#0173b2"}


def seconds(records, seed, factor):
    """As if one seed's pretraining had been on a busy machine."""
    out = []
    for one in records:
        cost = one.checkpoint.cost.model_copy(update={"device": "cpu, 1 threads"})
        if one.seed == seed:
            cost = cost.model_copy(update={"seconds": cost.seconds * factor})
        checkpoint = one.checkpoint.model_copy(update={"cost": cost})
        task = Cost(seconds=30.0, images_seen=0, device="cpu, 1 threads")
        out.append(one.model_copy(update={"checkpoint": checkpoint, "cost": task}))
    return out


def test_one_disturbed_run_does_not_move_the_cost(record):
    plain = seconds(made.scores(record, ["simmim", "mae"], ["knn"], 3), 0, 1)
    busy = seconds(made.scores(record, ["simmim"], ["knn"], 3), 0, 10)
    places = {}
    for name, records in (("plain", plain), ("busy", [*busy, *plain[3:]])):
        fig = figure("cost", Source.from_records(records))
        (marker,) = [line for line in fig.axes[0].lines if line.get_label() == "SimMIM"]
        places[name] = marker.get_xdata()[0]
    assert places["plain"] == places["busy"]
    ends = [tuple(line.get_xdata()) for line in fig.axes[0].lines if len(line.get_xdata()) == 2]
    hours = busy[1].checkpoint.cost.seconds / 3600
    assert any(span == pytest.approx((hours + 30 / 3600, 10 * hours + 30 / 3600)) for span in ends)
    assert fig.axes[0].get_xlim()[1] > 10 * hours
    note = fig.get_label().replace("\n", " ")
    assert "median over seeds (lines: range over seeds)" in note
    assert fig.axes[0].get_xlabel().replace("\n", " ") == "Time (h) on 1 CPU thread"
    assert "range over seeds" not in figure("cost", Source.from_records(plain)).get_label().replace("\n", " ")


def test_devices_as_readers_call_them():
    assert device_label("cpu, 1 threads") == "1 CPU thread"
    assert device_label("cpu, 16 threads") == "16 CPU threads"
    assert device_label("NVIDIA H100 80GB HBM3") == "NVIDIA H100 80GB HBM3"


def test_no_figure_is_higher_than_a_page(record, reference, tmp_path):
    """Six tasks and nine methods at the width of a column: several files where one would be higher."""
    methods = ("random-init", "supervised", "autoencoder", "simmim", "mae", "beit", "maskfeat", "data2vec", "sharpen")
    tasks = ("linear-probe", "knn", "finetune", "segmentation", "few-shot", "robustness")
    many = Source.from_records(made.scores(record, methods, tasks, 2))
    kinds = {many: ("cost", "loss", "seeds"), reference: ("cost", "seeds")}
    stored = made.stored(made.rebuilt(record), tmp_path / "runs", side=(400, 700))
    pictured = Source.read(stored)
    counts = {}
    for source, expected in (kinds | {pictured: ("rebuilt",)}).items():
        for kind in expected:
            drawn = figures(kind, source, Options())
            counts[source, kind] = len(drawn)
            assert all(fig.get_figheight() <= HIGHEST + 0.01 for fig in drawn), kind
            assert all(fig.get_label() for fig in drawn), "each stands for itself"
    assert counts[many, "loss"] == 1
    assert max(counts[reference, kind] for kind in ("seeds", "cost")) <= 2
    assert counts[many, "seeds"] == counts[pictured, "rebuilt"] == 2
    parts = figures("seeds", many, Options())
    titles = [axes.get_title(loc="left") for fig in parts for axes in fig.axes]
    assert len(titles) == len(set(titles)) == len(tasks), "each panel once"
    heights = [fig.get_figheight() for fig in parts]
    assert max(heights) < 1.5 * min(heights), "parts about as high as one another"


def test_text_is_never_smaller_than_six_points(reference):
    texts = [text for kind in ("seeds", "loss") for text in figure(kind, reference).findobj(Text) if text.get_text()]
    assert len(texts) > 20
    assert min(text.get_fontsize() for text in texts) == 6.0


def test_the_chance_level_is_called_what_it_is(record):
    records = [r.model_copy(update={"chance": 19.5}) for r in made.rebuilt(record)]
    with_chance = [r.model_copy(update={"details": {"chance": "mean fill"}}) for r in records]
    percent = made.scores(record, ["simmim", "mae"], ["knn"], 2)

    def keys(records, kind="bars"):
        return [
            text.get_text()
            for legend in figure(kind, Source.from_records(records)).legends
            for text in legend.get_texts()
        ]

    assert keys(with_chance)[-1] == keys(with_chance, "seeds")[-1] == keys(with_chance, "cost")[-1] == "mean fill"
    assert keys(records)[-1] == "trivial baseline"
    assert keys(percent)[-1] == "chance"
    assert keys([*with_chance, *percent])[-1] == "chance; Reconstruction: mean fill"


def test_fills_are_one_line_each_the_mean_over_seeds(record):
    records = made.rebuilt(record)
    for index, one in enumerate(records):
        curves = one.curves | {"psnr, mean fill": [value + index for value in one.curves["psnr, mean fill"]]}
        records[index] = one.model_copy(update={"curves": curves})
    (axes,) = figure("ratios", Source.from_records(records)).axes
    expected = np.mean([one.curves["psnr, mean fill"] for one in records], axis=0)
    for name in ("mean fill", "nearest fill"):
        (line,) = [line for line in axes.lines if line.get_label() == name]
        assert list(line.get_xdata()) == [0.3, 0.5, 0.75, 0.9]
        if name == "mean fill":
            assert line.get_ydata() == pytest.approx(list(expected))


@pytest.mark.parametrize(("seeds", "named"), [(3, "(Student's t)"), (5, "(Student's t)"), (1, "without an")])
def test_the_note_of_a_baseline_plot_names_what_was_used(seeds, named, record):
    records = made.scores(record, ["random-init", "mae"], ["knn"], seeds)
    note = figure("bars", Source.from_records(records), Options(baseline="random-init")).get_label().replace("\n", " ")
    assert named in note
    assert f"n = {seeds} pair" in note


def test_every_metric_of_the_built_in_tasks_has_a_readers_name():
    tasks = [registry.tasks.load(name) for name in registry.tasks.names()]
    labels = {
        (task.name, metric.name): metric_label(task.name, metric.name, metric.unit)
        for task in tasks
        for metric in task.metrics
    }
    assert len(labels) > 20
    for (_, name), label in labels.items():
        assert label.split(" (")[0] != name
        assert "_" not in label
    by_name = {name: label for (_, name), label in labels.items()}
    assert len(set(by_name.values())) == len(by_name) == len(set(labels.values()))
    assert labels["few-shot", "top1_5shot"] == "Top-1 accuracy, 5-shot (%)"
    assert labels["few-shot", "top1_1shot"] == "Top-1 accuracy, 1-shot (%)"
    assert labels["knn", "top1_k20"].replace("\u00a0", " ") == "Top-1 accuracy, k = 20 (%)"
    assert labels["detection", "mask_AP75"] == "Mask AP75 (%)"
    assert labels["reconstruction", "ssim"] == "SSIM"
    assert metric_label("my_task", "my_own", "dB") == "my_own (dB)"


def test_epochs_begin_at_none(reference):
    for width in (3.4, 7.0):
        (fig,) = figures("epochs", reference, Options(baseline="random-init", width=width))
        low, high = fig.axes[0].get_xlim()
        assert low <= 0
        assert high >= 26
        assert min(fig.axes[0].lines[2].get_xdata()) == 0


def to_oklab(colour: str) -> np.ndarray:
    """Ottosson's OKLab, in which distances follow what eyes distinguish."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lms = np.array([[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]]) @ linear
    return np.array([[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]]) @ np.cbrt(
        lms
    )


def test_the_best_known_methods_have_distinct_colours():
    colours = {name: to_oklab(method_style(name).colour) for name in ("simmim", "mae", "beit", "maskfeat", "data2vec")}
    for one, other in itertools.combinations(colours, 2):
        assert np.linalg.norm(colours[one] - colours[other]) > 0.18, (one, other)
