"""What is drawn is what was measured: bar heights, curve points, intervals, fronts, published numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from helpers import plot_records as made
from helpers.preset_records import preset_record
from mimbench.errors import InputError
from mimbench.report.page.leaderboard import build_leaderboard, describe_leaderboard
from mimbench.report.plots.cost import pareto_front
from mimbench.report.plots.equal_settings import settings_without
from mimbench.report.plots.kinds import draw_kinds, figure, plot_kinds
from mimbench.report.plots.source import NothingToPlot, Options, Source
from mimbench.report.plots.style import method_label, task_label
from mimbench.report.published.numbers import load_published
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.collect import collect_scores, filter_rows
from mimbench.report.scores.statistics import paired_difference, t_interval
from mimbench.report.tables.comparison import build_table


@pytest.fixture(scope="module")
def scores(record):
    return made.scores(record)


@pytest.fixture(scope="module")
def means(scores, framed):
    return framed(scores).groupby(["method", "task"])["value"].mean().to_dict()


def lines(axes, method):
    """Lines of a method's main setting."""
    return [line for line in axes.lines if line.get_label() == method_label(method)]


def points(axes, method):
    (line,) = lines(axes, method)
    return dict(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True))


def by_title(fig, title):
    (axes_with_title,) = [axes for axes in fig.axes if axes.get_title(loc="left").replace("\n", " ") == title]
    return axes_with_title


def values_of(records, method, task, **varied):
    chosen = [r for r in records if (r.method.name, r.task.name) == (method, task) and r.varied == varied]
    return [record.primary[1].value for record in chosen]


def test_bars_are_the_means_and_dots_the_seeds(scores, means):
    fig = figure("bars", Source.from_records(scores), Options(width=7))
    heights, dots = {}, []
    for axes in fig.axes:
        tasks = [label.get_text().split("\n")[0] for label in axes.get_xticklabels()]
        for bars in axes.containers:
            if hasattr(bars, "patches"):
                (bar,) = bars.patches
                heights[bars.get_label(), tasks[round(bar.get_x() + bar.get_width() / 2)]] = bar.get_height()
        dots += [value for line in axes.lines if line.get_markersize() < 2 for value in line.get_ydata()]
    expected = {(method_label(method), task_label(task)): mean for (method, task), mean in means.items()}
    assert heights == pytest.approx(expected)
    assert sorted(dots) == pytest.approx(sorted(record.primary[1].value for record in scores))


@pytest.mark.parametrize(("seeds", "spread"), [(5, "ci"), (3, "ci"), (5, "sd")])
def test_whiskers_are_the_interval_that_the_note_names(record, seeds, spread):
    records = made.scores(record, ["simmim"], ["knn"], seeds)
    fig = figure("bars", Source.from_records(records), Options(spread=spread))
    values = values_of(records, "simmim", "knn")
    (segment,) = [s for c in fig.axes[0].collections for s in c.get_segments() if s[0][0] == s[1][0]]
    if spread == "sd":
        expected, named = (
            (np.mean(values) - np.std(values, ddof=1), np.mean(values) + np.std(values, ddof=1)),
            "±1 std over seeds",
        )
    else:
        interval = t_interval(values)
        expected, named = (interval.low, interval.high), "95 % interval of the mean (Student's t)"
    assert segment[:, 1] == pytest.approx(expected)
    note = fig.get_label().replace("\n", " ")
    assert f"n = {seeds} seeds" in note
    assert named in note


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_table_page_and_plot_have_the_same_interval(record, framed, seeds):
    records = made.scores(record, ["simmim", "random-init"], ["knn"], seeds)
    expected = t_interval(values_of(records, "simmim", "knn"))
    tidy = framed(records)
    grid = collect_scores(filter_rows(tidy, Choice()), Choice())
    (in_table,) = [score.summary.interval for score in grid.scores.values() if score.shared["method"] == "simmim"]
    rows = {
        row["method"]: row
        for row in describe_leaderboard(build_leaderboard(tidy), {one.id: 0 for one in records})["rows"]
    }
    cell = rows["simmim"]["cells"][0]
    axes = figure("bars", Source.from_records(records), Options(methods=("simmim",))).axes[0]
    (segment,) = [s for c in axes.collections for s in c.get_segments() if s[0][0] == s[1][0]]
    for low, high in ((in_table.low, in_table.high), (cell["low"], cell["high"]), segment[:, 1]):
        assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))

    differences = build_table(grid, Choice(baseline=Baseline.parse("random-init")))
    place = [column.title for column in differences.columns].index("Δ random-init")
    (numbers,) = [row[place].content.numbers for row in differences.rows if row[place].content]
    (axes,) = figure("bars", Source.from_records(records), Options(baseline="random-init")).axes
    (segment,) = [s for c in axes.collections for s in c.get_segments() if s[0][1] == s[1][1] and len(s) == 2]
    assert sorted(segment[:, 0]) == pytest.approx(numbers[1:3])


def test_differences_to_a_baseline_are_paired(scores):
    fig = figure("bars", Source.from_records(scores), Options(baseline="random-init", tasks=("knn",)))
    drawn = {m: next(iter(points(fig.axes[0], m))) for m in made.METHODS if m != "random-init"}
    values = {m: dict(enumerate(values_of(scores, m, "knn"))) for m in made.METHODS}
    expected = {m: paired_difference(values[m], values["random-init"]).mean for m in made.METHODS if m != "random-init"}
    assert drawn == pytest.approx(expected)
    assert "paired by seed" in fig.get_label()
    with pytest.raises(InputError, match="no record has the baseline 'sim'; did you mean 'simmim'"):
        figure("bars", Source.from_records(scores), Options(baseline="sim"))
    for kind in ("seeds", "cost", "layers", "loss"):
        with pytest.raises(InputError, match=f"--baseline: {kind} shows no baseline"):
            figure(kind, Source.from_records(scores), Options(baseline="mae"))


def test_protocols_never_share_a_panel(record):
    records = made.scores(record, ["simmim", "mae"], ["linear-probe", "knn"], 2) + made.layered(record, 2)
    source = Source.from_records(records)
    layers = {"layers=one", "layers=all"}
    for kind in ("bars", "seeds"):
        titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure(kind, source).axes]
        assert {title.split(", ")[1] for title in titles if title.startswith("Linear probe")} == layers
    assert len(figure("cost", source).axes) == 3


def test_ablation_has_every_value_and_the_papers_curve(record):
    records = made.ablation(record) + made.ablation(record, "mae")
    fig = figure("ablation", Source.from_records(records), Options(methods=("simmim",), published=True))
    ours = points(by_title(fig, "Linear probe on mnist5k"), "simmim")
    expected = {
        r: np.mean(values_of(records, "simmim", "linear-probe", **{"method.mask_ratio": r})) for r in (0.2, 0.4, 0.8)
    }
    assert ours == pytest.approx(expected | {0.6: np.mean(values_of(records, "simmim", "linear-probe"))})
    theirs = points(
        by_title(fig, "Published: SimMIM, Swin-B, finetune on ImageNet-1K"), "published: random, mask patch 32"
    )
    rows = load_published().query("setting == 'random, mask patch 32'")
    assert theirs == dict(zip(rows["variant"].str[11:].astype(float), rows["value"], strict=True))
    assert theirs[0.5] == 83.0
    fig = figure("ablation", Source.from_records(records), Options(methods=("mae",), published=True))
    # MAE's paper has our very task: only that panel is shown, and none of its others.
    assert len(fig.axes) == 2
    axes = by_title(fig, "Published: MAE, ViT-L/16, linear-probe on ImageNet-1K")
    assert points(axes, "published: random sampling")[0.75] == 73.5
    assert "read from a figure" in fig.get_label().replace("\n", " ")


def test_a_published_curve_of_the_same_protocol_shares_the_panel(record):
    varied = [{"method.mask_ratio": ratio} for ratio in (0.4, 0.6)]
    records = [preset_record(record, settings=one, varied=one) for one in varied]
    assert not lines(figure("ablation", Source.from_records(records)).axes[0], "published: random, mask patch 32")
    fig = figure("ablation", Source.from_records(records), Options(published=True))
    (axes,) = fig.axes
    assert points(axes, "published: random, mask patch 32")[0.5] == 83.0
    assert set(points(axes, "simmim")) == {0.4, 0.6}


def test_an_ablation_of_several_paths_has_to_be_chosen(record):
    records = made.ablation(record) + [
        made.one(record, "simmim", varied={"method.masking": kind}) for kind in ("block", "square")
    ]
    source = Source.from_records(records)
    with pytest.raises(InputError, match=r"vary method.mask_ratio, method.masking: choose one with --over PATH"):
        figure("ablation", source)
    names = [name for name, drawn in draw_kinds("all", source, Options()) if not isinstance(drawn, NothingToPlot)]
    assert {"ablation-method.mask_ratio", "ablation-method.masking"} <= set(names)
    fig = figure("ablation", source, Options(over="method.masking"))
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["block", "random", "square"]
    with pytest.raises(
        InputError, match=r"no method has two values of it, all else equal; did you mean 'method.mask_ratio'"
    ):
        figure("ablation", source, Options(over="method.mask_rati"))


def test_other_settings_make_lines_of_their_own(record):
    records = made.ablation(record, seeds=2)
    deep = {"name": "vit", "patch_size": 4, "embed_dim": 64, "depth": 8}
    for old in made.ablation(record, seeds=2):
        recipe = old.recipe | {"encoder": deep}
        records.append(
            old.model_copy(update={"id": f"deep-{old.id}", "recipe": recipe, "pretraining": f"d{old.pretraining}"})
        )
    axes = figure("ablation", Source.from_records(records)).axes[0]
    labels = [line.get_label() for line in axes.lines if len(line.get_xdata()) > 1]
    assert labels == ["SimMIM, vit 64x4/4, depth=4", "SimMIM, vit 64x8/4, depth=8"]
    assert [len(points(axes, label)) for label in labels] == [4, 4]


def test_a_task_s_own_setting_is_an_axis_though_it_is_part_of_the_protocol(record):
    records = [
        made.one(
            record, "simmim", seed, varied={"task.layer": layer}, protocol={"layer": layer, "p": 1}, value=50 + layer
        )
        for layer in (0, 1, 2)
        for seed in (0, 1)
    ]
    fig = figure("ablation", Source.from_records(records))
    assert points(fig.axes[0], "simmim") == {0.0: 50.0, 1.0: 51.0, 2.0: 52.0}


def test_epochs_say_that_each_is_a_full_schedule(record):
    records = made.lengths(record) + made.scores(record, ["random-init"], ["linear-probe"], 3)
    fig = figure("epochs", Source.from_records(records), Options(baseline="random-init", published=True))
    axes = by_title(fig, "Linear probe on mnist5k")
    lengths = (5, 10, 20, 40)
    expected = {e: np.mean(values_of(records, "mae", "linear-probe", **{"pretrain.epochs": e})) for e in lengths}
    assert points(axes, "mae") == pytest.approx(expected)
    assert "a full schedule each" in axes.get_xlabel()
    level = np.mean(values_of(records, "random-init", "linear-probe"))
    assert level in [pytest.approx(line.get_ydata()[0]) for line in axes.lines]
    theirs = by_title(fig, "Published: MAE, ViT-L/16, linear-probe on ImageNet-1K")
    assert points(theirs, "published: full schedule each")[1600.0] == 75.1


def test_epochs_of_one_schedule_end_with_the_plain_record(record):
    records = made.on_the_way(record) + made.scores(record, ["random-init"], ["linear-probe"], 3)
    fig = figure("epochs", Source.from_records(records))
    axes = by_title(fig, "Linear probe on mnist5k")
    assert set(points(axes, "mae")) == {0.0, 5.0, 26.0}
    assert points(axes, "mae")[26.0] == pytest.approx(np.mean(values_of(records, "mae", "linear-probe")))
    assert "of one schedule" in axes.get_xlabel()
    with pytest.raises(NothingToPlot):
        figure("ablation", Source.from_records(records))


def test_an_option_of_a_later_version_makes_no_other_setting(record):
    """Records of one pretraining, some made before an option existed, are one curve; a changed option is another."""

    def at(epoch, seed, **options):
        changes = {} if epoch is None else {"pretrain.at_epoch": epoch}
        made_at = made.one(record, "mae", seed, varied=changes)
        recipe = {**made_at.recipe, "pretrain": {**made_at.recipe["pretrain"], "at_epoch": epoch, **options}}
        pretraining = f"at {epoch}{', nesterov' if options.get('nesterov') else ''}"
        return made_at.model_copy(update={"recipe": recipe, "pretraining": pretraining})

    old = [at(epoch, seed) for epoch in (5, None) for seed in (0, 1)]
    new = [at(epoch, seed, nesterov=False) for epoch in (5, None) for seed in (2, 3)]
    axes = by_title(figure("epochs", Source.from_records(old + new)), "Linear probe on mnist5k")
    ends = [one.metrics["top1"].value for one in old[2:] + new[2:]]
    assert points(axes, "mae")[26.0] == pytest.approx(np.mean(ends))
    assert len(lines(axes, "mae")) == 1
    assert len(settings_without(Source.from_records(old + new), ["pretrain.at_epoch"])) == 8
    changed = [at(epoch, seed, nesterov=True) for epoch in (5, None) for seed in (4, 5)]
    keys = settings_without(Source.from_records(old + new + changed), ["pretrain.at_epoch"])
    assert len({keys[one.id] for one in old + new}) == 1
    assert {keys[one.id] for one in changed} == set(keys.values()) - {keys[old[0].id]}


def test_lengths_and_epochs_of_one_schedule_share_no_panel(record):
    lengths = [r for r in made.lengths(record) if r.varied["pretrain.epochs"] != 26]
    fig = figure("epochs", Source.from_records(made.on_the_way(record) + lengths))
    places = {axes.get_xlabel(): set(points(axes, "mae")) for axes in fig.axes if lines(axes, "mae")}
    assert places["Epochs pretrained (of one schedule)"] == {0.0, 5.0, 26.0}
    assert places["Pretraining epochs (a full schedule each)"] == {5.0, 10.0, 20.0, 26.0, 40.0}


def test_recipes_of_several_lengths_are_grouped_and_the_note_says_so(record):
    records = [made.one(record, "mae", epochs=epochs) for epochs in (10, 20)]
    recipe = records[1].recipe
    records[1] = records[1].model_copy(update={"recipe": recipe | {"method": {**recipe["method"], "norm": True}}})
    fig = figure("epochs", Source.from_records(records))
    assert set(points(by_title(fig, "Linear probe on mnist5k"), "mae")) == {10.0, 20.0}
    assert "recipes differ in more than their epochs" in fig.get_label().replace("\n", " ")


def test_layers_ratios_and_losses_are_the_curves_of_the_records(record):
    records = made.layered(record) + made.rebuilt(record)
    source = Source.from_records(records)
    axes = by_title(figure("layers", source), "Linear probe on mnist5k")
    for method in made.METHODS:
        curves = [
            r.curves["top1_by_layer"] for r in records if r.method.name == method and r.task.name == "linear-probe"
        ]
        assert points(axes, method) == pytest.approx(dict(enumerate(np.mean(curves, axis=0))))
    axes = by_title(figure("ratios", source), "Reconstruction on mnist5k")
    curves = [r.curves["psnr"] for r in records if r.method.name == "mae" and r.task.name == "reconstruction"]
    assert points(axes, "mae") == pytest.approx(dict(zip((0.3, 0.5, 0.75, 0.9), np.mean(curves, axis=0), strict=True)))
    assert list(points(axes, "mean fill").values()) == records[-1].curves["psnr, mean fill"]
    fig = figure("loss", source)
    assert [axes.get_title(loc="left") for axes in fig.axes] == ["SimMIM", "MAE", "BEiT", "sharpen"]
    losses = [r.checkpoint.loss for r in records if r.method.name == "beit"]
    assert list(points(fig.axes[2], "beit").values()) == pytest.approx(list(np.mean(losses, axis=0)))


def test_cost_is_that_of_pretraining_and_task_together(record):
    records = made.scores(record, tasks=["finetune"], seeds=2)
    fig = figure("cost", Source.from_records(records), Options(tasks=("finetune",)))
    (hours,) = fig.axes  # all methods see as many images, and controls open no panel
    expected = {}
    for method in made.METHODS:
        one = next(r for r in records if r.method.name == method)
        expected[method] = (one.checkpoint.cost.seconds + 30) / 3600
    drawn = {m: next(iter(points(hours, m))) for m in made.METHODS}
    assert drawn == {method: pytest.approx(point) for method, point in expected.items()}
    (front,) = lines(hours, "Pareto front")
    means = {m: np.mean(values_of(records, m, "finetune")) for m in made.METHODS}
    assert sorted(front.get_ydata()) == pytest.approx(sorted(means[m] for m in ("random-init", "mae", "simmim")))
    filled = {m for m in made.METHODS if lines(hours, m)[0].get_markerfacecolor() != "white"}
    assert filled == {"random-init", "mae", "simmim"}


def test_devices_have_panels_of_their_own(record):
    records = made.scores(record, ["simmim", "mae"], ["knn"], 1)
    gpu = records[1].cost.model_copy(update={"device": "NVIDIA H100"})
    checkpoint = records[1].checkpoint.model_copy(
        update={"cost": records[1].checkpoint.cost.model_copy(update={"device": "NVIDIA H100"})}
    )
    records[1] = records[1].model_copy(update={"cost": gpu, "checkpoint": checkpoint})
    labels = [axes.get_xlabel().replace("\n", " ") for axes in figure("cost", Source.from_records(records)).axes]
    assert labels == ["Time (h) on cpu", "Time (h) on NVIDIA H100"]  # all saw as many images


@pytest.mark.parametrize("higher", [True, False])
def test_the_pareto_front_is_what_brute_force_finds(higher):
    rng = random.Random(0)
    for _ in range(200):
        pairs = [(rng.randint(0, 4), rng.randint(0, 4)) for _ in range(rng.randint(1, 9))]
        sign = 1 if higher else -1

        def dominates(a, b, sign=sign):
            return a[0] <= b[0] and sign * a[1] >= sign * b[1] and a != b

        expected = [i for i, b in enumerate(pairs) if not any(dominates(a, b) for a in pairs)]
        assert sorted(pareto_front(*zip(*pairs, strict=True), higher)) == expected


def test_all_seeds_are_drawn_and_one_seed_has_no_spread(record, scores):
    fig = figure("seeds", Source.from_records(scores), Options(tasks=("knn",)))
    for method in made.METHODS:
        assert sorted(points(fig.axes[0], method)) == pytest.approx(sorted(values_of(scores, method, "knn")))
    with pytest.raises(
        NothingToPlot, match=r"two or more seeds of one setting; to make some, run `mimbench run .*--seeds 0,1,2"
    ):
        figure("seeds", Source.from_records(made.scores(record, seeds=1)))


def test_every_kind_says_what_is_missing(record):
    bare = Source.from_records([record()])
    refused = {}
    for kind in set(plot_kinds()) - {"bars", "cost"}:
        with pytest.raises(NothingToPlot) as reason:
            figure(kind, bare)
        refused[kind] = str(reason.value)
    for kind, text in refused.items():
        assert text.startswith(f"nothing to plot as {kind}: needs ")
        assert "`mimbench run --method" in text
        assert "\n" not in text
    for kind, drawn in draw_kinds("all", bare, Options()):
        assert isinstance(drawn, NothingToPlot) == (kind in refused)
    with pytest.raises(InputError, match="unknown kind of plot 'bar'; did you mean 'bars'"):
        figure("bar", bare)
    with pytest.raises(InputError, match="no record has a task 'kn'"):
        list(draw_kinds("all", Source.from_records(made.scores(record, ["mae"], ["knn"], 1)), Options(tasks=("kn",))))


@pytest.mark.parametrize("methods", [("mae",), ("mae", "simmim")])
def test_every_kind_draws_methods_that_have_only_earlier_epochs(methods, record):
    """Their place among all settings is known, whether or not other methods have ends."""
    records = [one for one in made.everything(record, seeds=2) if one.method.name in ("random-init", "mae", "simmim")]
    early = [made.early(one) if one.method.name in methods else one for one in records]
    refused = {
        title
        for title, drawn in draw_kinds("all", Source.from_records(early), Options())
        if isinstance(drawn, NothingToPlot)
    }
    needs_files = {"detections", "segmentations", "rebuilt", "generated", "reconstructions", "confusion"}
    assert refused == needs_files | {
        "heatmap",
        "label-efficiency",
        "classes",
        "precision-recall",
        "predictors",
        "depths",
        "roc",
        "exposure",
    } | (
        {"critical-difference", "win-rates"}  # of two methods
    )


def test_two_records_of_one_seed_are_separate_points(record):
    twice = [record(value=50.0), record(value=60.0)]
    labels = [bars.get_label() for bars in figure("bars", Source.from_records(twice)).axes[0].containers]
    assert sorted(labels) == ["SimMIM, setting 1", "SimMIM, setting 2"]


def test_whiskers_end_where_the_metric_does_and_the_note_says_so(record):
    def drawn_with(*values):
        fig = figure(
            "bars",
            Source.from_records([made.one(record, "simmim", n, value=v) for n, v in enumerate(values)]),
            Options(),
        )
        ends = [end for line in fig.axes[0].collections for path in line.get_paths() for end in path.vertices[:, 1]]
        return ends, str(fig.get_label())  # the caption

    ends, text = drawn_with(55.0, 95.0)
    assert t_interval((55.0, 95.0)).low < 0
    assert (min(ends), max(ends)) == (0, 100)
    assert "cut at the metric's range" in text
    assert "cut at" not in drawn_with(55.0, 55.1)[1]
