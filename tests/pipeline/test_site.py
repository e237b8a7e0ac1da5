"""The site of the pages: it builds, its links hold, and a browser shows it without a network."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import reference
import website
from axe_playwright_python.sync_playwright import Axe
from helpers import ROOT
from playwright.sync_api import Browser, Page
from test_docs import PAGES

PLUGIN = "snakemake_logger_plugin_eqco"  # the whole API takes ten seconds
SEEN = ["index.html", "docs/keys.html", f"api/{PLUGIN}.html"]
MORE = ["docs/findings.html", "docs/findings/flatness.html", "results/index.html"]
SEEN += [pytest.param(name, marks=pytest.mark.slow) for name in MORE]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    website.build(folder, [PLUGIN])
    return folder


@contextmanager
def opened(browser: Browser, site: Path, name: str, width: int = 1280) -> Iterator[Page]:
    """Open a page as a file; at the end there was no error, and nothing of elsewhere asked for."""
    told: list[str] = []
    page = browser.new_context(offline=True, viewport={"width": width, "height": 900}).new_page()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url))
    page.goto((site / name).as_uri())
    yield page
    page.context.close()
    assert [text for text in told if not text.startswith(site.as_uri())] == []


@pytest.mark.parametrize("name", SEEN)
def test_a_page_is_whole_and_accessible(browser, site, name):
    for width in (1280, 390):
        with opened(browser, site, name, width) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = Axe().run(page, options={"preload": False}).response["violations"]
            assert [one for one in found if one["impact"] in ("serious", "critical")] == []


def test_the_search_finds_a_key(browser, site):
    with opened(browser, site, "index.html") as page:
        page.keyboard.press("Control+k")
        page.keyboard.type("batch_norm_groups")
        page.locator("a[href*='docs/keys.html']", has_text="network").first.wait_for()


def test_the_navigation_leads_to_every_page(browser, site):
    listed = [
        title
        for pages in website.navigation()
        for page in next(iter(pages.values()))
        for title in page
    ]
    with opened(browser, site, "index.html") as page:
        links = page.locator(".md-nav--primary a.md-nav__link").all_text_contents()
    assert set(listed) <= {text.strip() for text in links}


@pytest.mark.slow
def test_make_docs_has_the_api_of_every_package(tmp_path):
    website.build(tmp_path / "site")
    for module in website.API:
        assert (tmp_path / "site" / "api" / f"{module}.html").exists()


def test_every_page_is_on_the_site(site):
    for page in PAGES:
        relative = page.relative_to(ROOT)
        name = "index" if page.name == "README.md" else page.stem
        assert (site / relative).with_name(f"{name}.html").exists(), relative


@pytest.mark.parametrize("wrong", ["missing.md", "docs/README.md#missing"])
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path, monkeypatch, wrong):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# A page\n\n[text](docs/README.md)\n")
    (tmp_path / "docs" / "README.md").write_text("# Pages\n\n## Reference\n\n- [A](../README.md)\n")
    monkeypatch.setattr(website, "ROOT", tmp_path)
    monkeypatch.setattr(website, "DOCS", tmp_path / "docs")
    website.build(tmp_path / "site", [PLUGIN])
    with (tmp_path / "README.md").open("a") as page:
        page.write(f"[text]({wrong})\n")
    with pytest.raises((subprocess.CalledProcessError, FileNotFoundError)):
        website.build(tmp_path / "other", [PLUGIN])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("page", ["keys", "cli"])
def test_the_reference_is_of_this_program(page):
    """`make reference` writes it anew."""
    assert (ROOT / "docs" / f"{page}.md").read_text() == getattr(reference, page)()
