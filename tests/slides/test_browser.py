"""Which Chromium is taken: the one named, one that is installed, Playwright's own; else the next step is named."""

import sys

import pytest

from slides import browser


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.delenv(browser.CHROMIUM_VARIABLE, raising=False)
    monkeypatch.setattr(browser, "NAMES", ("no-such-browser",))
    monkeypatch.setattr(browser, "playwrights_own", lambda: None)


def test_playwrights_own_is_taken_where_none_is_installed(nothing_installed, monkeypatch):
    monkeypatch.setattr(browser, "playwrights_own", lambda: "/downloaded/chrome")
    assert browser.chromium() == "/downloaded/chrome"
    monkeypatch.setattr(browser, "NAMES", ("no-such-browser", sys.executable))
    assert browser.chromium() == sys.executable


def test_a_browser_that_is_named_and_missing_is_not_replaced(nothing_installed, monkeypatch):
    monkeypatch.setattr(browser, "playwrights_own", lambda: "/downloaded/chrome")
    monkeypatch.setenv(browser.CHROMIUM_VARIABLE, "my-browser")
    with pytest.raises(browser.NoBrowser, match="looked for my-browser"):
        browser.chromium()


def test_without_any_the_next_steps_are_named(nothing_installed):
    with pytest.raises(browser.NoBrowser, match=r"make system-packages, or .*playwright install chromium, or set"):
        browser.chromium()
