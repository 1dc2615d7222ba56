"""The page in a real browser, opened from disk: headless Chromium does what a person does."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from playwright.sync_api import expect

from helpers.page_results import (
    HOSTILE,
    REFERENCE,
    SCORED,
    failure,
    write_epochs,
    write_hostile,
    write_paper,
    write_results,
)
from mimbench.recipe.document import read
from mimbench.recipe.resolve import resolve
from mimbench.report.page.build import write_page
from mimbench.report.page.leaderboard import build_leaderboard, row_key
from mimbench.report.records.frame import load_records
from mimbench.report.scores.choice import Choice
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.viewer.render import unpack

VIEWS = ("leaderboard", "runs", "ablations", "failures", "published", "downloads")
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("page")
    write_results(root / "results", methods=("simmim", "mae", "random-init"), ratios=(0.3, 0.6, 0.9))
    return write_page(root / "results", root / "page")


@pytest.fixture
def opened(browser, built):
    """Opens the page as opened(address, ...); afterwards nothing may have been reported or asked for."""
    contexts, troubles = [], []

    def open_page(address: str = "", page: Path | None = None, width: int = 1280, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:"))
                else troubles.append(f"asked for {request.url}")
            ),
        )
        tab.goto(f"{(page or built).as_uri()}#{address}")
        tab.locator("main > section:visible h2").wait_for()  # the data is unpacked first
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def data_of(page: Path) -> dict:
    return unpack(page.read_text())


def go(tab, address: str) -> None:
    tab.evaluate(
        """to => location.hash === '#' + to || new Promise(done => {
            addEventListener('hashchange', () => setTimeout(done), {once: true});
            location.hash = to;
        })""",
        address,
    )
    tab.locator("main > section:visible h2").wait_for()


def column(tab, name: str) -> list[str]:
    """What stands in a column of the table that is shown, from top to bottom."""
    titles = tab.locator("main > section:visible thead th button").all_inner_texts()
    index = [title.split("\u00a0")[0].strip() for title in titles].index(name)
    return tab.locator(f"main > section:visible tbody tr > :nth-child({index + 1})").all_inner_texts()


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split()[0].rstrip("abc")) for text in texts]


def test_a_header_sorts_by_click_and_says_so(opened):
    tab = opened()
    header = tab.get_by_role("columnheader", name="Linear probe top-1")
    assert header.get_attribute("aria-sort") == "none"
    assert column(tab, "Method")[0] == "Random init"  # controls stay above the others
    ranked = numbers(column(tab, "APbox"))[1:]
    assert ranked == sorted(ranked, reverse=True)  # a leaderboard begins with the best
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    values = numbers(column(tab, "Linear probe top-1"))[1:]
    assert values == sorted(values, reverse=True)
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert numbers(column(tab, "Linear probe top-1"))[1:] == values[::-1]
    ratio = tab.get_by_role("columnheader", name="Mask ratio")
    ratio.get_by_role("button").click()
    assert column(tab, "Mask ratio") == ["-", "0.3", "0.3", "0.6", "0.6", "0.9", "0.9"]
    assert (ratio.get_attribute("aria-sort"), header.get_attribute("aria-sort")) == ("ascending", "none")


def test_filters_narrow_rows_and_columns(opened):
    tab = opened()
    assert set(column(tab, "Method")) == {"SimMIM", "MAE", "Random init"}
    tab.get_by_label("Filter rows").fill("mae 0.6")
    assert column(tab, "Method") == ["MAE"]
    expect(tab.get_by_text("marks are those among the rows shown")).to_be_visible()
    tab.get_by_label("Filter rows").fill("nothing of that name")
    expect(tab.get_by_text("Nothing matches.")).to_be_visible()
    tab.get_by_label("Filter rows").fill("")
    tab.get_by_role("combobox", name="Method").select_option("random-init")
    assert column(tab, "Method") == ["Random init"]
    tab.get_by_role("combobox", name="Task").select_option("linear-probe")
    assert not tab.get_by_role("columnheader", name="detection").count()
    tab.get_by_label("All metrics").check()
    expect(tab.get_by_role("columnheader", name="Linear probe top-5")).to_be_visible()
    protocol = tab.get_by_role("combobox", name="Protocol").locator("option").nth(1)
    tab.get_by_role("combobox", name="Protocol").select_option(protocol.get_attribute("value"))
    assert protocol.inner_text().startswith("Linear probe: ")
    assert len(column(tab, "Linear probe top-1")) == 1


def test_a_number_links_to_its_runs_and_a_run_shows_everything(opened, built):
    tab = opened()
    tab.get_by_role("row", name="Random init").get_by_role("link").first.click()
    expect(tab.get_by_role("heading", name="Random init")).to_be_visible()
    expect(tab.get_by_text("95 % interval of the mean")).to_be_visible()
    names = [text for text in column(tab, "Run") if text]
    assert len(names) == 3
    tab.get_by_role("link", name=names[0]).click()
    assert tab.url.endswith(f"#run={names[0]}")
    tab.wait_for_function("name => document.activeElement.textContent === name", arg=names[0])

    run = next(run for run in data_of(built)["runs"] if run["id"].startswith("simmim-detection-s0"))
    go(tab, f"run={run['id']}")
    shown = tab.locator("main > section:visible")
    assert shown.locator(".command pre").inner_text() == run["rerun_command"]
    assert shown.locator("figure img").evaluate("image => image.naturalWidth") == 320
    assert shown.locator(".chart figcaption").all_inner_texts() == [
        "SimMIM: pretraining loss by epoch",
        "Detection: loss by epoch",
    ]
    shown.get_by_text("As resolved").click()
    varied = shown.get_by_role("row", name="method.mask_ratio")
    assert varied.locator(".badge").inner_text() == "varied"
    for title in ("all settings that may change the score", "All values", "Commit, packages and machine"):
        shown.get_by_text(title).click()
    for path in ("packages.torch", "per_class.boxes.0.AP", "nms_threshold"):
        shown.get_by_role("rowheader", name=path, exact=True).first.wait_for()  # rows come once a part is opened
    go(tab, "run=no-such-run")
    expect(tab.get_by_role("heading", name="Not in this report")).to_be_visible()


def test_the_command_is_copied(browser, built):
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    run = data_of(built)["runs"][0]
    tab.goto(f"{built.as_uri()}#run={run['id']}")
    tab.get_by_role("button", name="Copy").click()
    tab.get_by_role("button", name="Copied").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == run["rerun_command"]
    context.close()


def test_settings_are_compared_with_differences_paired_by_seed(opened, built):
    tab = opened()
    tab.get_by_label("Compare Random init").check()
    assert tab.get_by_role("button", name="Select one more to compare").is_disabled()
    tab.get_by_label("Compare SimMIM, Mask ratio=0.6").check()
    tab.get_by_role("button", name="Compare", exact=True).click()
    tab.get_by_role("heading", name="Comparison").wait_for()
    data = data_of(built)

    def by_seed(method: str, ratio: str) -> dict[int, float]:
        (row,) = (row for row in data["leaderboard"]["rows"] if (row["method"], row["labels"][2]) == (method, ratio))
        runs = [data["runs"][number] for cell in row["cells"] for number in cell["runs"]]
        return {run["seed"]: run["values"][0][0] for run in runs if run["task"] == "linear-probe"}

    base, ours = by_seed("random-init", "-"), by_seed("simmim", "0.6")
    from mimbench.report.scores.statistics import t_interval

    differences = [ours[seed] - base[seed] for seed in sorted(base)]
    interval = t_interval(differences)
    text = tab.get_by_role("row", name="Linear probe top-1").inner_text().replace("\u2212", "-")
    assert f"Δ +{sum(differences) / 3:.1f} [{interval.low:.1f}, {interval.high:.1f}] (n=3)" in text
    recipes = tab.get_by_label("Recipes side by side")
    differing = recipes.locator("tbody tr").count()
    assert recipes.locator("tr.differs").count() == differing > 0
    ratio = recipes.locator("tr", has=tab.get_by_role("rowheader", name="method.mask_ratio"))
    assert ratio.inner_text().split() == ["method.mask_ratio", "-", "0.6"]
    tab.get_by_label("Only what differs").uncheck()
    assert recipes.locator("tbody tr").count() > differing == recipes.locator("tr.differs").count()


def test_runs_of_other_seeds_are_not_paired(opened, built):
    runs = [run["id"] for run in data_of(built)["runs"] if run["task"] == "linear-probe"]
    seeds = {seed: next(name for name in runs if f"-s{seed}-" in name) for seed in (0, 1)}
    tab = opened(f"compare={seeds[0]},{seeds[1]}")
    assert tab.get_by_text("no seed in common").count() == 2
    go(tab, f"compare={seeds[0]}")
    expect(tab.get_by_text("Select two or more rows")).to_be_visible()


def test_everything_is_reached_and_done_by_keyboard(opened):
    tab = opened()
    press = tab.keyboard.press
    press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.locator(".skip").bounding_box()["x"] >= 0
    press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    seen = []
    for _ in range(40):
        press("Tab")
        focus = tab.evaluate(
            """() => { const one = document.activeElement, style = getComputedStyle(one);
            return [one.tagName, one.textContent || one.ariaLabel || "", style.outlineStyle, one.ariaLabel] }"""
        )
        assert focus[2] != "none", f"no focus is seen on {focus}"
        seen.append(focus)
        if focus[3] and focus[3].startswith("Compare "):
            break
    tags = [tag for tag, *_ in seen]
    assert {"INPUT", "SELECT", "BUTTON", "DIV"} <= set(tags)  # the DIV scrolls
    press("Space")
    expect(tab.get_by_text("1 selected")).to_be_visible()
    header = tab.get_by_role("columnheader", name="Encoder")
    header.get_by_role("button").focus()
    press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert tab.evaluate("document.activeElement.textContent") == "Encoder"  # the focus stays
    press("Space")
    assert header.get_attribute("aria-sort") == "descending"
    tab.get_by_role("link", name="Runs", exact=True).focus()
    press("Enter")
    # The browser reports the new address after the key, so the view changes a moment later.
    expect(tab.get_by_role("heading", name="Runs", exact=True)).to_be_focused()
    expect(tab.get_by_role("link", name="Runs", exact=True)).to_have_attribute("aria-current", "page")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_to_its_background(opened, built, scheme):
    data = data_of(built)
    rows = [f"setting%3A{row['key']}" for row in data["leaderboard"]["rows"][:2]]
    tab = opened(scheme=scheme)
    grounds = set()
    sampled = next(run["id"] for run in data["runs"] if run["samples"])
    for address in (*VIEWS, f"run={data['runs'][0]['id']}", f"run={sampled}", f"compare={','.join(rows)}"):
        go(tab, address)
        for box in tab.locator("main > section:visible details > summary").filter(has_text="worst of").all():
            box.click()
        tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        tab.wait_for_timeout(50)
        contrast = tab.evaluate(CONTRAST)
        assert contrast["texts"] > 20
        assert contrast["faint"] == [], address
        grounds.add(contrast["ground"])
    assert grounds == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"}


def test_a_phone_needs_no_sideways_scroll_but_within_tables(opened, built):
    data = data_of(built)
    rows = [f"setting%3A{row['key']}" for row in data["leaderboard"]["rows"][:4]]
    tab = opened(width=375)
    for address in (*VIEWS, f"run={data['runs'][0]['id']}", f"compare={','.join(rows)}"):
        go(tab, address)
        tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        tab.wait_for_timeout(50)
        assert tab.evaluate("document.documentElement.scrollWidth") == 375, address
        tab.evaluate("scrollTo(200, 0)")
        assert tab.evaluate("scrollX") == 0, address
    go(tab, "published")
    box = tab.get_by_label("Published numbers")
    assert box.evaluate("one => { one.scrollLeft = 300; return one.scrollLeft }") == 300


def test_a_hostile_record_is_only_text(opened, tmp_path):
    write_hostile(tmp_path / "results")
    page = write_page(tmp_path / "results", tmp_path / "page")
    data = data_of(page)
    assert any(run["method"] == HOSTILE for run in data["runs"])
    tab = opened(page=page)
    hostile = next(run["id"] for run in data["runs"] if run["method"] == HOSTILE)
    expect(tab.locator("main tbody").get_by_text(HOSTILE).first).to_be_visible()
    key = next(row["key"] for row in data["leaderboard"]["rows"] if row["method"] == HOSTILE)
    other = next(row["key"] for row in data["leaderboard"]["rows"] if row["method"] != HOSTILE)
    strange = ("%", "run=%E0%A4%A", "score=x,9", "score=__proto__,1")
    for address in (*VIEWS, *strange, f"compare=setting%3A{key},setting%3A{other}"):
        go(tab, address)
        tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        tab.wait_for_timeout(30)
    tab.evaluate("id => { location.hash = '#run=' + encodeURIComponent(id); }", hostile)
    tab.get_by_role("heading", name=hostile).wait_for()
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("main script, main iframe, main img[onerror]").count() == 0
    assert tab.locator("script").count() == 2


def test_ablations_failures_and_published_numbers_are_shown(opened):
    tab = opened("ablations")
    shown = tab.locator("main > section:visible")
    titles = shown.locator("figcaption").all_inner_texts()
    assert titles[:2] == ["AP box", "Linear probe top-1"]
    assert [title.split(", ")[0] for title in titles[2:]] == ["Published: MAE", "Published: MAE", "Published: SimMIM"]
    theirs = shown.locator("figure").nth(2)
    expect(theirs.get_by_text("MAE paper (arXiv 2111.06377), Figure 5")).to_be_visible()
    assert theirs.locator("g.series path.hollow").count() == 10
    assert shown.locator("figure").first.locator(".hollow").count() == 0
    assert shown.locator("figure").first.locator(".legend li").all_inner_texts() == ["MAE", "SimMIM"]
    assert shown.locator("figure").first.locator("g.series path.mark").count() == 6
    tab.get_by_role("link", name="Failures (1)").click()
    expect(tab.get_by_text("the loss is not finite at step 120")).to_be_visible()
    go(tab, "published")
    shown = tab.locator("main > section:visible")
    assert shown.locator("tbody tr").count() == 200  # not all at once
    tab.get_by_label("Search").fill("SimMIM Swin-B coco")
    tab.get_by_role("combobox", name="Method").select_option("SimMIM")
    assert set(column(tab, "method")) == {"SimMIM"}
    assert "52.3" in column(tab, "value")
    assert all(column(tab, "source"))


def test_downloads_contain_the_table_and_every_measurement(opened, built, tmp_path):
    tab = opened("downloads")
    got = {}
    for name in ("leaderboard.csv", "leaderboard.tex", "leaderboard.md", "leaderboard-all.csv", "measurements.csv"):
        with tab.expect_download() as coming:
            tab.get_by_role("link", name=name).click()
        coming.value.save_as(tmp_path / name)
        got[name] = (tmp_path / name).read_text(encoding="utf-8")
    data = data_of(built)
    assert got["leaderboard.csv"] == data["downloads"]["csv"]
    assert got["leaderboard.tex"] == data["downloads"]["latex"]
    assert got["leaderboard-all.csv"] == data["downloads"]["all"]
    rows = list(csv.DictReader(io.StringIO(got["measurements.csv"])))
    assert len(rows) == sum(len(run["values"]) for run in data["runs"])
    first = data["runs"][0]
    assert (rows[0]["id"], float(rows[0]["value"])) == (first["id"], first["values"][0][0])


def test_only_the_view_is_printed_on_white(opened, built):
    run = next(run["id"] for run in data_of(built)["runs"] if run["task"] == "detection")
    tab = opened(f"run={run}", scheme="dark")
    tab.emulate_media(media="print")
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(tab.locator("nav")).to_be_hidden()
    expect(tab.get_by_role("rowheader", name="nms_threshold").first).to_be_visible()


def test_the_reference_records_open(opened, tmp_path):
    tab = opened(page=write_page(REFERENCE.parent, tmp_path / "page"))
    names = column(tab, "Method")
    assert (names[0], names.count("SimMIM"), names.count("MAE")) == ("Supervised", 3, 1)
    assert "50.4" in tab.get_by_role("row", name="SimMIM").filter(has_text="58.6").inner_text()


def test_earlier_epochs_are_there_when_asked_for_and_never_lead(opened, tmp_path):
    write_results(tmp_path / "results", methods=("simmim", "random-init"), ratios=(0.6,))
    write_epochs(tmp_path / "results")
    tab = opened(page=write_page(tmp_path / "results", tmp_path / "page"))
    assert len(column(tab, "Method")) == 2
    tab.get_by_label("Earlier epochs").check()
    pretrainings = column(tab, "Pretraining")
    assert [text.split(", ")[1] for text in pretrainings if "epoch " in text] == ["epoch 10 of 26", "epoch 2 of 26"]
    early = tab.get_by_role("row").filter(has_text="epoch 10 of 26")
    assert early.locator(".best").count() == 0
    go(tab, "ablations")
    assert tab.get_by_role("img").first.is_visible()
    tab.get_by_label("Varied").select_option("Epochs pretrained")
    shown = tab.locator("main > section:visible")
    expect(shown.locator("svg text").get_by_text("Epochs pretrained")).to_be_visible()
    assert shown.locator(".legend").all_inner_texts() == ["SimMIM"]  # said where there is one curve too
    assert shown.locator("g.series path.mark").count() == 3
    go(tab, "runs")
    tab.get_by_label("Filter runs").fill("simmim epoch 2")
    assert [text.split(", ")[-1] for text in column(tab, "Setting")] == ["epoch 2 of 26"]
    tab.get_by_role("link", name="simmim-linear-probe").click()
    expect(tab.locator("dd").get_by_text("epoch 2 of 26")).to_be_visible()
    tab.get_by_label("Select for comparison").check()
    go(tab, "leaderboard?earlier=1")
    early.get_by_role("checkbox", name="Compare SimMIM, epoch 10 of 26").check()
    tab.get_by_role("row", name="mnist5k, 26 epochs").get_by_role("checkbox", name="Compare SimMIM", exact=True).check()
    tab.get_by_role("button", name="Compare", exact=True).click()
    heads = tab.get_by_label("Recipes side by side").locator("thead th").all_inner_texts()
    assert heads[-2:] == ["SimMIM, epoch 10 of 26", "SimMIM"]
    recipes = tab.get_by_label("Recipes side by side")
    assert recipes.get_by_role("rowheader", name="tasks.detection").count() == 0  # not measured, so nothing differs


def test_a_filter_takes_a_seed_for_one_thing(opened):
    tab = opened("runs")
    tab.get_by_label("Filter runs").fill("seed 1 mae")
    assert set(column(tab, "Seed")) == {"1"}


def test_losses_of_different_methods_have_separate_charts(opened, built):
    chosen = [
        row["key"]
        for row in data_of(built)["leaderboard"]["rows"]
        if row["labels"][2] in ("0.3", "0.6") and row["method"] in ("simmim", "mae")
    ]
    tab = opened(f"compare={','.join(f'setting%3A{key}' for key in chosen)}")
    charts = tab.locator("figure.chart", has=tab.locator("figcaption").get_by_text("pretraining loss"))
    assert charts.locator("figcaption").all_inner_texts() == [
        "MAE: pretraining loss by epoch",
        "SimMIM: pretraining loss by epoch",
    ]
    for index, method in enumerate(("MAE", "SimMIM")):
        assert charts.nth(index).locator(".legend li").all_inner_texts() == [
            f"{method}, Mask ratio={ratio}" for ratio in ("0.3", "0.6")
        ]
        assert charts.nth(index).locator("path.line").count() == 2 + 2  # a mean over seeds for each, and the keys
        assert charts.nth(index).locator("path.band").count() == 2


def within(tab, box: dict, outer: dict) -> bool:
    return outer["x"] <= box["x"] and box["x"] + box["width"] <= outer["x"] + outer["width"] + 1


@pytest.mark.parametrize("address", ["published", "downloads", "leaderboard"])
def test_the_tab_of_the_view_is_in_sight_on_a_phone(opened, address):
    tab = opened(address, width=390)
    bar = tab.locator("#views")
    assert within(tab, bar.locator("[aria-current]").bounding_box(), bar.bounding_box())
    go(tab, "runs")
    assert within(tab, bar.locator("[aria-current]").bounding_box(), bar.bounding_box())


@pytest.mark.parametrize(("view", "table"), [("leaderboard", "Leaderboard"), ("published", "Published numbers")])
def test_a_number_is_in_sight_on_a_phone(opened, tmp_path, view, table):
    tab = opened(view, page=write_page(REFERENCE.parent, tmp_path / "page"), width=390)
    box = tab.get_by_label(table, exact=True)
    for row in box.locator("tbody tr").all()[:5]:
        number = row.locator("td.number").first
        assert any(sign.isdigit() for sign in number.inner_text())
        assert within(tab, number.bounding_box(), box.bounding_box())


def test_on_a_phone_the_name_contains_the_setting(opened):
    tab = opened(width=390)
    expect(tab.locator("tbody th small").get_by_text("Mask ratio=0.6").first).to_be_visible()
    tab.set_viewport_size({"width": 1280, "height": 800})  # turned over, or a wider window
    assert [title.split("\u00a0")[0] for title in tab.locator("thead th button").all_inner_texts()][1] == "Encoder"
    assert tab.locator("tbody th small").count() == 0


def test_the_command_of_a_failure_is_whole_and_copied(opened, tmp_path):
    write_results(tmp_path / "results", methods=("random-init",))
    failed = failure(tmp_path / "results", " ".join(["mimbench run --method simmim,mae", *["--set a.b=c"] * 30]))
    tab = opened("failures", page=write_page(tmp_path / "results", tmp_path / "page"))
    box = tab.get_by_label("Failures", exact=True)
    assert box.evaluate("one => one.scrollWidth - one.clientWidth") <= 1
    assert box.locator("pre").inner_text() == failed
    button = box.get_by_role("button", name="Copy")
    assert within(tab, button.bounding_box(), box.bounding_box())
    button.focus()
    tab.keyboard.press("Enter")
    expect(box.get_by_role("button", name="Copied")).to_be_visible()


def test_where_there_are_no_earlier_epochs_none_are_offered(opened):
    assert opened().get_by_label("Earlier epochs").is_hidden()


def test_filters_and_order_are_in_the_address(opened, built):
    tab = opened()
    tab.get_by_role("combobox", name="Method").select_option("mae")
    tab.get_by_label("Filter rows").fill("0.6")
    tab.get_by_label("All metrics").check()
    tab.get_by_role("columnheader", name="Encoder").get_by_role("button").click()
    address = tab.url.split("#")[1]
    assert address == "leaderboard?q=0.6&method=mae&all=1&sort=encoder%2Cascending"
    again = opened(address)
    assert column(again, "Method") == ["MAE"]
    assert again.get_by_label("Filter rows").input_value() == "0.6"
    assert again.get_by_label("All metrics").is_checked()
    assert again.get_by_role("columnheader", name="Encoder").get_attribute("aria-sort") == "ascending"
    go(again, "runs?task=detection&q=seed+1")
    assert set(column(again, "Seed")) == {"1"}
    again.get_by_role("link", name="Leaderboard", exact=True).click()
    assert again.url.endswith(address)  # the tab keeps the choice
    expect(again.get_by_role("link", name="Leaderboard", exact=True)).to_have_attribute("aria-current", "page")


def test_differences_to_a_baseline_are_paired_by_seed(opened, built):
    tab = opened()
    tab.get_by_role("combobox", name="Difference to").select_option(label="Random init")
    data = data_of(built)
    values = {
        (run["method"], run["seed"]): run["values"][0][0]
        for run in data["runs"]
        if run["task"] == "linear-probe" and data["shared"][run["varied"]] in ({}, {"method.mask_ratio": 0.6})
    }
    differences = [values["simmim", seed] - values["random-init", seed] for seed in (0, 1, 2)]
    row = tab.get_by_role("row", name="Compare SimMIM, Mask ratio=0.6")
    assert f"Δ +{sum(differences) / 3:.1f} [" in row.inner_text()
    assert "Δ" not in tab.get_by_role("row", name="Compare Random init").inner_text()


MARKS = """() => [...document.querySelectorAll("main > section:not([hidden]) tbody tr")].map((row) => [
    row.querySelector("input").dataset.key.slice("setting:".length),
    [...row.querySelectorAll("td.number a")].map((link) => link.firstChild.className.replace("value", "")),
])"""


def test_marks_of_all_rows_are_those_of_the_table(opened, tmp_path):
    tidy = load_records(REFERENCE.parent, earlier_epochs=True)
    board = build_leaderboard(tidy)
    tab = opened("leaderboard?all=1&earlier=1", page=write_page(REFERENCE.parent, tmp_path / "page"))
    shown = {key: sorted(marks) for key, marks in tab.evaluate(MARKS)}
    expected = {
        row_key(board.grid, key): sorted(cell.mark for cell in cells[board.label_columns :] if cell.content is not None)
        for key, cells in zip(board.grid.row_keys, board.table.rows, strict=True)
    }
    assert shown == expected
    assert {mark for marks in shown.values() for mark in marks} == {"best", "similar", ""}


def test_marks_follow_the_filter(opened, tmp_path):
    tab = opened("leaderboard?task=knn", page=write_page(REFERENCE.parent, tmp_path / "page"))
    shown = tab.locator("main > section:visible tbody")
    best = []
    for text in ("", "vit", "crossmae"):
        tab.get_by_label("Filter rows").fill(text)
        scores = [
            float(score) for score in shown.locator("tr:not(.apart) td.number a span:first-child").all_inner_texts()
        ]
        best.append(max(scores))
        assert {float(score) for score in shown.locator("a .best").all_inner_texts()} == (
            {max(scores)} if text != "crossmae" else set()
        )
    assert best[0] > best[1] > best[2]


def test_columns_are_chosen_and_in_the_address(opened):
    tab = opened()
    tab.get_by_text("Columns: ").click()
    tab.get_by_label("Mean rank over").check()
    tab.get_by_label("Pretraining time").check()
    tab.get_by_role("group", name="Columns").get_by_label("Encoder").uncheck()
    titles = [title.split("\u00a0")[0] for title in tab.locator("thead th button").all_inner_texts()]
    assert "Encoder" not in titles
    assert titles[-2:] == ["Mean rank", "Pretraining time"]
    again = opened(tab.url.split("#")[1])
    assert [title.split("\u00a0")[0] for title in again.locator("thead th button").all_inner_texts()] == titles
    assert all(text.endswith((" s", " min", " h")) for text in column(again, "Pretraining time"))


def test_ranks_are_those_of_tables(opened, built, tmp_path):
    tidy = load_records(built.parent.parent / "results")
    table = build_comparison(
        tidy, Choice(row_fields=("method", "encoder"), column_fields=("task", "metric"), ranks=True)
    )
    expected = sorted(round(row[-1].content.rank.mean, 2) for row in table.rows if row[-1].content is not None)
    shown = [text for text in column(opened("leaderboard?columns=rank"), "Mean rank") if text.strip()]
    assert sorted(map(float, shown)) == expected
    assert len(expected) == 6


def test_the_resolved_recipe_is_saved_as_a_recipe(opened, tmp_path):
    write_paper(tmp_path / "results", ratios=(0.9,))
    (record,) = (tmp_path / "results").glob("records/*.json")
    body = json.loads(record.read_text())
    tab = opened(f"run={body['id']}", page=write_page(tmp_path / "results", tmp_path / "page"))
    with tab.expect_download() as coming:
        tab.get_by_role("button", name="as TOML").click()
    path = tmp_path / coming.value.suggested_filename
    coming.value.save_as(path)
    recipe = resolve(str(path), read(str(path)), "mae", {}, None)
    task = body["recipe"].pop("task")
    assert recipe.as_tables() == body["recipe"]
    assert recipe.as_tables()["method"]["mask_ratio"] == 0.9
    assert recipe.task("linear-probe").config.model_dump(mode="json") == task


def test_worst_samples_are_filtered_by_error_and_saved(opened, built, tmp_path):
    runs = data_of(built)["runs"]
    probe, detection = (
        next(run for run in runs if run["id"].startswith(f"simmim-{task}-s0")) for task in ("linear-probe", "detection")
    )
    tab = opened(f"run={probe['id']}")
    tab.get_by_text(f"The 100 worst of {SCORED} test samples").click()
    table = tab.get_by_role("region", name="Worst samples")
    assert table.locator("tbody tr").first.inner_text().split("\t") == ["149", "9", "9", "\u221e"]
    error = tab.get_by_label("Error")
    assert error.locator("option").all_inner_texts()[:3] == ["all (100)", "wrong (30)", "right (70)"]
    error.select_option("3 taken for 4")
    assert {row.split("\t")[1] for row in table.locator("tbody tr").all_inner_texts()} == {"3"}
    assert "15 of the 100 samples with the worst values" in tab.locator("main").inner_text()
    error.select_option("wrong")
    losses = [float(row.split("\t")[3]) for row in table.locator("tbody tr").all_inner_texts()]
    assert losses == sorted(losses, reverse=True)
    with tab.expect_download() as coming:
        tab.get_by_role("button", name="worst samples as CSV").click()
    coming.value.save_as(tmp_path / "samples.csv")
    rows = list(csv.DictReader((tmp_path / "samples.csv").open()))
    assert (len(rows), rows[0]) == (100, {"id": "149", "label": "9", "prediction": "9", "loss": "inf"})
    tab.close()

    tab = opened(f"run={detection['id']}")
    tab.get_by_text("The 4 worst of 4 test samples").click()
    tab.get_by_label("Error").select_option("false detections")
    rows = tab.get_by_role("region", name="Worst samples").locator("tbody tr")
    assert [row.split("\t")[:4] for row in rows.all_inner_texts()] == [["2", "2", "2", "1"]]


def test_a_chart_and_a_run_are_saved_as_files(opened, built, tmp_path):
    run = next(run for run in data_of(built)["runs"] if run["id"].startswith("simmim-detection-s0"))
    tab = opened(f"run={run['id']}")
    saved = {}
    for name in ("CSV", "SVG", "JSON"):
        with tab.expect_download() as coming:
            tab.get_by_role("button", name=f"as {name}").first.click()
        coming.value.save_as(tmp_path / name)
        saved[name] = (tmp_path / name).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(saved["CSV"])))
    assert list(rows[0])[:2] == ["series", "epoch"]
    svg = ElementTree.fromstring(saved["SVG"])
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert any(each.get("stroke", "none") != "none" for each in svg.iter("{http://www.w3.org/2000/svg}path"))
    whole = json.loads(saved["JSON"])
    assert whole["id"] == run["id"]
    assert whole["metrics"][0]["value"] == run["values"][0][0]
    assert whole["recipe"]["method"]["name"] == "simmim"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440, 2560])
def test_no_view_is_wider_than_the_window_and_axe_core_objects_to_none(opened, built, width, scheme):
    axe = pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text()
    data = data_of(built)
    rows = [f"setting%3A{row['key']}" for row in data["leaderboard"]["rows"][:2]]
    tab = opened(width=width, scheme=scheme)
    tab.evaluate(script)
    for address in (*VIEWS, f"run={data['runs'][0]['id']}", f"compare={','.join(rows)}"):
        go(tab, address)
        assert tab.evaluate("document.documentElement.scrollWidth") == width, address
        violations = tab.evaluate("() => axe.run(document).then((report) => report.violations)")
        assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == [], address
