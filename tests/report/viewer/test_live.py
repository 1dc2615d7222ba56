"""`mimbench report --watch` in a browser: runs in progress move by themselves, and new results appear."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from helpers.page_results import write_epochs, write_results
from mimbench.leases import hold_lease
from mimbench.report.page import watch
from mimbench.store.progress import PROGRESS, TrainingProgress, write_progress

NOTE = TrainingProgress("simmim, seed 0", "epoch", 1.5, 4, [(0.5, 0.9), (1.5, 0.4)], {"accuracy": 0.25}, 120.0, 3.0)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """served(results): the address of the live page, whose pages are built again at once."""
    monkeypatch.setattr(watch, "_PAUSE", 0)
    servers = []

    def serve(results: Path) -> str:
        server = watch.WatchServer(watch.LivePage(results), 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.address

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def opened(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    troubles = []

    def open_page(address: str):
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("request", lambda one: None if one.url.startswith(("http://127", "data:")) else troubles.append(one.url))
        tab.goto(address)
        return tab

    yield open_page
    context.close()
    assert troubles == []


def test_a_run_in_progress_moves_and_its_result_appears(served, opened, tmp_path):
    write_results(tmp_path / "results", methods=("simmim",), ratios=(0.6,), seeds=(0,))
    work = tmp_path / "results" / "work" / "aaaa"
    write_progress(work / PROGRESS, NOTE)
    with hold_lease(work, "pretrain simmim"):
        tab = opened(f"{served(tmp_path / 'results')}#running")
        section = tab.locator("#running")
        expect(tab.get_by_role("link", name="Running (1)")).to_be_visible()
        expect(section.get_by_role("heading", name="pretrain simmim")).to_be_visible()
        expect(section).to_contain_text("epoch 2/4, loss 0.4, accuracy 0.25, 120 images/s, about 3")
        expect(section.get_by_role("progressbar")).to_have_attribute("value", "1.5")
        expect(section.locator(".series .mark")).to_have_count(2 + 1)  # and the legend's
        write_progress(work / PROGRESS, replace(NOTE, done=3.5, loss=[*NOTE.loss, (3.5, 0.125)]))
        expect(section).to_contain_text("epoch 4/4, loss 0.125")
        expect(section.locator(".series .mark")).to_have_count(3 + 1)
    expect(section).to_contain_text("Nothing runs here now")
    expect(section.get_by_role("heading", name="pretrain simmim")).to_have_count(0)
    before = tab.locator("#summary").text_content()
    write_epochs(tmp_path / "results")
    expect(tab.locator("#summary")).not_to_have_text(before)
    expect(section).to_be_visible()


def test_a_first_run_is_shown_before_there_are_records(served, opened, tmp_path):
    write_progress(tmp_path / "work" / "aaaa" / PROGRESS, NOTE)
    with hold_lease(tmp_path / "work" / "aaaa", "pretrain simmim"):
        tab = opened(served(tmp_path))
        expect(tab.locator("#running")).to_contain_text("epoch 2/4")
        expect(tab.locator("#views a")).to_have_text(["Running (1)", "Published"])
        tab.get_by_role("link", name="Published").click()
        expect(tab.locator("#published h2")).to_be_visible()
        tab.evaluate("location.hash = 'leaderboard'")
        expect(tab.locator("#running h2")).to_be_visible()
    write_results(tmp_path, methods=("simmim",), ratios=(0.6,), seeds=(0,))
    expect(tab.get_by_role("link", name="Leaderboard")).to_be_visible()


def test_a_selection_is_not_lost_by_new_results(served, opened, tmp_path):
    write_results(tmp_path / "results", methods=("simmim",), ratios=(0.6,), seeds=(0,))
    tab = opened(f"{served(tmp_path / 'results')}#runs")
    tab.locator("#runs input[type=checkbox]").first.check()
    write_epochs(tmp_path / "results")
    tab.evaluate("location.hash = 'running'")
    expect(tab.locator("#running")).to_contain_text("There are new results; reload the page")
    expect(tab.locator("#tray")).to_be_visible()
