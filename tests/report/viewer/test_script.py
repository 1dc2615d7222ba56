"""The script's pure functions, called one by one in Chromium, on a page without data."""

from __future__ import annotations

import csv
import io
import math
import random
import tomllib
from importlib.resources import files

import pytest

from helpers.page_results import REFERENCE
from mimbench.recipe.document import read
from mimbench.recipe.resolve import resolve
from mimbench.report.scores.statistics import best_and_next, paired_p_value, summarise, t_interval
from mimbench.report.viewer.render import PURE_SCRIPTS
from mimbench.store.reading import read_body
from mimbench.text import spreadsheet_text, visible


@pytest.fixture(scope="module")
def script(browser):
    """A tab in which the pure modules are loaded; script.evaluate calls their functions."""
    tab = browser.new_page()
    folder = files("mimbench.report.viewer") / "script"
    for name in PURE_SCRIPTS:
        tab.add_script_tag(content=(folder / name).read_text(encoding="utf-8"))
    yield tab
    tab.close()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("plural(1, 'run')", "1 run"),
        ("plural(1200, 'run')", "1,200 runs"),
        ("unique([3, 1, 3, 2, 1])", [3, 1, 2]),
        ("decimalsOf('percent')", 1),
        ("decimalsOf('nll')", 3),
        ("formatNumber(-0.25, 1)", "\u22120.3"),
        ("formatSigned(0, 1)", "+0.0"),
        ("formatSigned(-2, 1)", "\u22122.0"),
        ("formatMean(50.06, 0.34, 1)", "50.1 ± 0.3"),
        ("formatMean(50.06, null, 1)", "50.1"),
        ("formatShort(12)", "12"),
        ("formatShort(1 / 3)", "0.33333"),
        ("formatValue(null)", "none"),
        ("formatValue('a b')", "a b"),
        ("formatValue([1, 'x'])", '[1,"x"]'),
        ("formatSeconds(12.34)", "12.3 s"),
        ("formatSeconds(600)", "10.0 min"),
        ("formatSeconds(7200)", "2.0 h"),
        ("formatBytes(3 * 2 ** 20)", "3 MiB"),
        ("formatBytes(null)", "not recorded"),
        ("formatTime('2026-11-24T08:00:12+00:00')", "2026-11-24 08:00"),
        ("formatTime(null)", ""),
    ],
)
def test_values_as_text(script, call, expected):
    assert script.evaluate(call) == expected


def test_flatten_keeps_lists_and_joins_paths(script):
    pairs = script.evaluate("flatten({a: {b: 1, c: [1, {d: 2}]}, e: null})")
    assert pairs == [["a.b", 1], ["a.c", [1, {"d": 2}]], ["e", None]]


def test_the_paired_difference_is_that_of_tables(script):
    rng = random.Random(0)
    for count in (2, 3, 5, 8):
        scores = {seed: rng.gauss(50, 3) for seed in range(count)}
        baseline = {seed: rng.gauss(48, 3) for seed in range(count)}
        differences = [scores[seed] - baseline[seed] for seed in range(count)]
        interval, summary = t_interval(differences), summarise(differences)
        # The quantile that gives the interval of tables is what the page is given.
        quantile = (interval.high - interval.low) / 2 * count**0.5 / summary.sd
        result = script.evaluate(
            "([scores, baseline, quantiles]) => pairedDifference(new Map(scores), new Map(baseline), quantiles)",
            [
                [[seed, value] for seed, value in scores.items()],
                [[seed, value] for seed, value in {99: 1.0, **baseline}.items()],
                [0] * (count - 2) + [quantile],
            ],
        )
        assert result["seeds"] == list(range(count))
        assert result["mean"] == pytest.approx(summary.mean)
        assert result["mean"] - result["halfWidth"] == pytest.approx(interval.low)
        assert result["mean"] + result["halfWidth"] == pytest.approx(interval.high)


def test_a_difference_needs_a_common_seed_and_an_interval_needs_two(script):
    assert script.evaluate("pairedDifference(new Map([[0, 1]]), new Map([[1, 2]]), [12.7])") is None
    one = script.evaluate("pairedDifference(new Map([[0, 1], [2, 5]]), new Map([[2, 2]]), [12.7])")
    assert one == {"seeds": [2], "mean": 3, "halfWidth": None}


def test_p_values_are_those_of_tables(script):
    rng = random.Random(3)
    for count in (2, 3, 4, 5, 6, 9, 20):
        for distance in (0.0, 0.5, 3.0, 30.0):
            scores = {seed: rng.gauss(50, 1) for seed in range(count)}
            others = {seed: rng.gauss(50 + distance, 1) for seed in range(count)}
            pairs = [[[seed, value] for seed, value in some.items()] for some in (scores, others)]
            shown = script.evaluate("([a, b]) => pairedPValue(new Map(a), new Map(b))", pairs)
            assert shown == pytest.approx(paired_p_value(scores, others), rel=1e-6, abs=1e-13)


@pytest.mark.parametrize(
    ("scores", "others", "expected"),
    [
        ({0: 1.0}, {0: 2.0, 1: 3.0}, None),
        ({0: 1.0, 1: 2.0}, {0: 0.0, 1: 1.0}, None),
        ({0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.0, 1: 1.0, 2: 3.0}, 0),
        ({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}, 1),
    ],
)
def test_p_values_of_equal_differences(script, scores, others, expected):
    assert paired_p_value(scores, others) == expected
    pairs = [[list(pair) for pair in some.items()] for some in (scores, others)]
    assert script.evaluate("([a, b]) => pairedPValue(new Map(a), new Map(b))", pairs) == expected


@pytest.mark.parametrize("higher", [True, False])
def test_marks_are_those_of_tables(script, higher):
    rng = random.Random(4)
    seen = set()
    for _ in range(40):
        levels = [rng.choice((50, 50.5, 52, 56)) for _ in range(rng.randint(1, 9))]
        scores = [{seed: round(rng.gauss(level, 0.6), 1) for seed in range(rng.randint(1, 5))} for level in levels]
        verdict = best_and_next(scores, higher)
        expected = [
            "best" if i in verdict.best else "similar" if i in verdict.similar else "" for i in range(len(scores))
        ]
        compared = [
            {"mean": math.fsum(one.values()) / len(one), "seeds": [list(pair) for pair in one.items()]}
            for one in scores
        ]
        call = "([some, higher]) => marksOf(some.map((one) => ({...one, seeds: new Map(one.seeds)})), higher)"
        assert script.evaluate(call, [compared, higher]) == expected
        seen |= set(expected)
    assert seen == {"best", "similar", ""}


def test_equal_values_share_the_mean_of_their_places(script):
    assert script.evaluate("ranksOf([3, 1, 3, 2], true)") == [1.5, 4, 1.5, 3]
    assert script.evaluate("ranksOf([3, 1, 3, 2], false)") == [3.5, 1, 3.5, 2]


def test_tables_as_toml(script):
    table = {"a": {"x": None, "y": [1, "b\n"], "t": {"k k": True}, "z": 1e-8, "l": [{"u": 0.5}]}, "b/c-d": {}}
    text = script.evaluate("table => tomlText('one\\ntwo', table)", table)
    assert text.startswith("# one two\n")
    expected = {"a": {**table["a"], "x": "none"}, "b": {"c-d": {}}}
    assert tomllib.loads(text) == expected


def test_the_last_quantile_holds_for_all_further_pairs(script):
    call = "pairedDifference(new Map([[0, 1], [1, 2], [2, 4]]), new Map([[0, 0], [1, 0], [2, 0]]), [2]).halfWidth"
    assert script.evaluate(call) == pytest.approx(2 * summarise([1.0, 2.0, 4.0]).sd / 3**0.5)


CELLS = [
    *("plain", "", "a,b", 'say "x"', "=1+1", " =1", "+1", "-1.5e3", "-1.5e3x", "@sum", "-", "--1", "1.", ".5", "-.5"),
    *("\uff1d1", "\uff0b1", "\uff0d1", "\uff201", "a=1", "\n=1", "\t=1", "\r=1", "a\nb", "\\n", "\\x", "5-shot", "+"),
    *("\x1b[31m", "\u202eb", "\u00a0=1", "'=1", "1e5", "1e"),
]


def test_csv_cells_are_those_of_other_csv_files(script):
    # The page holds texts whose control characters are visible already, line breaks and tabs excepted.
    shown = [visible(text, keep="\n\t") for text in CELLS]
    text = script.evaluate("cells => csvText(cells.map((cell) => [cell, 'x']))", shown)
    assert list(csv.reader(io.StringIO(text))) == [[spreadsheet_text(cell), "x"] for cell in CELLS]


def test_csv_cells_of_other_values(script):
    assert script.evaluate("csvText([[1.5, null, -2, true, [1, 2]]])") == '1.5,,-2,true,"[1,2]"\n'


@pytest.mark.parametrize(
    ("query", "terms"),
    [("", []), ("MAE 0.6", ["mae", "0.6"]), ("Seed 1 mae", ["seed 1", "mae"]), ("seed 1x", ["seed", "1x"])],
)
def test_terms_of_a_filter(script, query, terms):
    assert script.evaluate("query => filterTerms(query)", query) == terms


def test_a_seed_is_matched_whole_and_all_terms_are_needed(script):
    matches = "([text, query]) => matchesTerms(text, filterTerms(query))"
    assert script.evaluate(matches, ["simmim seed 1 host", "seed  1"])
    assert not script.evaluate(matches, ["simmim seed 12 host", "seed 1"])
    assert script.evaluate(matches, ["simmim seed 12", "sim seed"])
    assert not script.evaluate(matches, ["simmim seed 12", "sim mae"])


def test_rows_sort_by_value_with_missing_ones_last(script):
    sort = "([values, ascending]) => sortRows(values.map((value) => ({value})), (row) => row.value, ascending)"

    def ordered(values: list, ascending: bool) -> list:
        return [row["value"] for row in script.evaluate(sort, [values, ascending])]

    assert ordered([10, None, 9, ""], True) == [9, 10, None, ""]
    assert ordered([10, None, 9, ""], False) == [10, 9, None, ""]
    assert ordered(["a10", "a9", "B1"], True) == ["a9", "a10", "B1"]


def test_ticks_are_round_and_within_the_range(script):
    assert script.evaluate("ticksBetween(0, 1, 5)") == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert script.evaluate("ticksBetween(-3, 47, 6)") == [0, 10, 20, 30, 40]
    assert script.evaluate("ticksBetween(0.1, 0.3, 4)") == [0.1, 0.15, 0.2, 0.25, 0.3]
    assert len(script.evaluate("ticksBetween(5, 5, 4)")) >= 1


def test_a_range_has_a_margin_and_is_never_empty(script):
    assert script.evaluate("paddedRange([0, 50, 100])") == [-6, 106]
    low, high = script.evaluate("paddedRange([0, 0])")
    assert low < 0 < high


def test_a_scale_maps_ends_to_ends(script):
    assert script.evaluate("[10, 15, 20].map(linearScale(10, 20, 0, 100))") == [0, 50, 100]
    assert script.evaluate("[0, 1].map(linearScale(0, 1, 200, 10))") == [200, 10]


def kinds_of_records() -> list[dict]:
    """One record of each method, encoder and task, for each set of options that its recipe names."""
    kinds = {}
    for file in sorted((REFERENCE.parents[1]).glob("*/records/*.json")):
        body = read_body(file)
        recipe = body["recipe"]
        options = [sorted(recipe[table]) for table in sorted(recipe)]
        name = [body[part]["name"] for part in ("method", "encoder", "task")]
        kinds.setdefault(repr([name, options, recipe["pretrain"].get("compile")]), body)
    return list(kinds.values())


def differing(recorded: dict, resolved: dict) -> list[str]:
    """Options that both have, with different values; those whose form changed are left out."""
    paths = []
    for key in recorded.keys() & resolved.keys() - {"compile"}:
        if isinstance(recorded[key], dict) and isinstance(resolved[key], dict):
            paths += [f"{key}.{path}" for path in differing(recorded[key], resolved[key])]
        elif recorded[key] != resolved[key]:
            paths.append(key)
    return paths


def test_the_recipe_of_each_kind_of_record_is_one_that_mimbench_runs(script, tmp_path):
    bodies = kinds_of_records()
    assert len(bodies) > 100
    assert any(body["recipe"]["pretrain"].get("compile") is False for body in bodies)
    for body in bodies:
        task, path = body["task"]["name"], tmp_path / f"{body['id']}.toml"
        path.write_text(
            script.evaluate("([task, of]) => tomlText('x', recipeTables(task, of))", [task, body["recipe"]])
        )
        recipe = resolve(str(path), read(str(path)), body["method"]["name"], {}, None)
        tables = recipe.as_tables() | {"task": recipe.task(task).config.model_dump(mode="json")}
        assert differing(body["recipe"], tables) == []
