"""The site, built once; pictures of slides are left out, so that building needs no browser."""

import os

import pytest

if not os.environ.get("CI"):
    pytest.importorskip("mkdocs", reason="the packages of the site are not installed: make site")

from slides import browser
from tools.site.build import build


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site") / "made"
    build(folder, pictures=False)
    return folder


@pytest.fixture(scope="module")
def window(site, chromium):
    """A browser window on the site, without a network."""
    with browser.open_page((site / "index.html").as_uri(), reveal=False) as page:
        yield page
