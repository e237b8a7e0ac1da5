"""The report: its bytes, and what a person sees and does in a browser without a network."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from helpers import (
    ROOT,
    TINY,
    cells,
    make_up_cells,
    study_of_1000_cells,
    with_values,
)
from PIL import Image
from playwright.sync_api import Browser, Locator, Page

from eqco.commands import steps, studies
from eqco.report.page import render
from eqco.study.grid import Grid
from eqco.study.load import load_study

POINT = "[aria-roledescription=point], [aria-roledescription='text mark']"  # or a hole
PUBLISHED = ROOT / "published" / "accuracies.csv"
INFO_NCE, EQCO = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)  # of their lines
GOOD = {"methods": ["simo"], "negatives": [1, 16], "margins": [0, "eqco"], "seeds": [0, 1]}
BAD = {**GOOD, "negatives": [16], "margins": [0], "lrs": [1e30], "seeds": [0]}
FAILED = "method~simo/negatives~16/margin~0/lr~1e+30/seed~0"
MISSING = "method~simo/negatives~1/margin~eqco/lr~0.01/seed~1"


@pytest.fixture(scope="module")
def study_file(tmp_path_factory, digits) -> Path:
    """A study of nine trained and rated cells: one has diverged, of one an evaluation is gone."""
    root = tmp_path_factory.mktemp("report")
    (root / "params").mkdir()
    file = root / "params" / "tiny.yaml"
    values = with_values(yaml.safe_load(TINY.read_text()), {"grid": [GOOD, BAD]})
    file.write_text(yaml.safe_dump(with_values(values, {"pretrain.epochs": 2})))
    for cell in cells(load_study(file)):
        folder = root / "results" / "tiny" / "cells" / cell
        steps.pretrain(file, cell, digits, folder, root / "state" / cell, threads=1)
        steps.linear_eval(file, folder / "encoder.safetensors", digits, folder / "linear.json")
        steps.knn_eval(file, folder / "encoder.safetensors", digits, folder / "knn.json")
    (root / "results" / "tiny" / "cells" / MISSING / "knn.json").unlink()
    return file


@pytest.fixture(scope="module")
def page_file(study_file) -> Path:
    results = study_file.parents[1] / "results" / "tiny"
    studies.report(study_file, results, PUBLISHED)
    return results / "report.html"


@contextmanager
def opened(browser: Browser, file: Path, width: int = 1280) -> Iterator[Page]:
    """Open a file without a network; at the end there was no error, and nothing was asked for."""
    told: list[str] = []
    page = browser.new_context(offline=True, viewport={"width": width, "height": 900}).new_page()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-drawn]")
    assert told.pop(0) == file.as_uri()  # the page's own
    yield page
    page.context.close()
    assert told == []


@pytest.fixture
def page(browser, page_file) -> Iterator[Page]:
    """A page of the test's own, to click and to type on."""
    with opened(browser, page_file) as page:
        yield page


@pytest.fixture(scope="module")
def seen(browser, page_file) -> Iterator[Page]:
    """The same page for all tests that look at it and leave it as it is."""
    with opened(browser, page_file) as page:
        yield page


def colors(element: Locator) -> dict[tuple[int, int, int], int]:
    """How many pixels of which colour are seen."""
    image = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    return {color: count for count, color in image.getcolors(1 << 24)}


def column(page: Page, head: str) -> list[str]:
    """The texts of a column of the table, from top to bottom."""
    heads = page.locator("#table + div th").all_text_contents()
    cells_of = f"#table + div tbody td:nth-child({heads.index(head) + 1})"
    return page.locator(cells_of).all_text_contents()


def descriptions(page: Page) -> list[str]:
    """What a screen reader reads of the points of the accuracies' chart."""
    points = page.locator("#against-simo").locator(POINT)
    return [point.get_attribute("aria-label") for point in points.all()]


def test_charts_are_drawn(seen):
    accuracies = colors(seen.locator("#against-simo"))
    assert accuracies[INFO_NCE] > 50
    assert accuracies[EQCO] > 20
    curves = seen.locator("#curves .chart")
    assert curves.count() == 6
    for curve in curves.all():
        assert colors(curve)[INFO_NCE] > 50  # the first seed has the first colour


def test_points_tell_their_values(seen):
    told = descriptions(seen)
    means, values = column(seen, "mean ± std [%]"), column(seen, "values [%]")
    assert f"InfoNCE (m = 0), lr 0.01, K 1: {means[0]}, seeds {values[0]}" in told
    seen.locator("#against-simo").locator(POINT).first.hover()
    seen.locator("#vg-tooltip-element", has_text=values[0]).wait_for()


def test_a_switch_changes_the_chart(page):
    chart = page.locator("#against-simo")
    before, shown = descriptions(page), chart.screenshot()
    page.get_by_label("protocol").select_option("knn")
    chart.get_by_label(before[0], exact=True).wait_for(state="detached")
    rows = zip(column(page, "protocol"), column(page, "mean ± std [%]"), strict=True)
    means = [mean for protocol, mean in rows if protocol == "knn" and mean != "hole"]
    told = [point for point in descriptions(page) if "hole" not in point]
    assert len(told) == len(means) == 3
    assert all(any(mean in point for point in told) for mean in means)
    assert chart.screenshot() != shown
    page.get_by_label("learning rate").select_option("1e+30")
    chart.get_by_text("InfoNCE").filter(has_text="0.01").wait_for(state="detached")
    assert descriptions(page) == ["InfoNCE (m = 0), lr 1e+30, K 16: hole, seeds failed"]


def test_holes_are_seen_and_told(page):
    chart = page.locator("#against-simo")
    assert chart.get_by_text("✕").count() == 2
    told = descriptions(page)
    assert "InfoNCE (m = 0), lr 1e+30, K 16: hole, seeds failed" in told
    assert any(re.fullmatch(r"EqCo .*, K 1: hole, seeds [\d.]+ missing", t) for t in told)
    rows = page.locator("tr.hole")
    assert rows.count() == 2 * 3
    assert rows.first.get_by_text("hole").is_visible()
    listed = page.locator(".holes li").all_text_contents()
    assert listed[0] == f"{MISSING} missing: knn.json: cannot be read: No such file or directory"
    assert listed[1].startswith(f"{FAILED} failed: the loss is not finite from step ")
    assert page.get_by_text("2 of them are holes").is_visible()
    page.get_by_label("configuration").select_option(label="simo, K 16, InfoNCE (m = 0), lr 1e+30")
    page.get_by_text("No seed of this configuration has a training").wait_for()


def test_the_table_sorts_by_click_and_by_keyboard(page):
    head = page.get_by_role("columnheader", name="mean")
    unsorted = column(page, "mean ± std [%]")
    head.get_by_role("button").click()
    numbers = [float(text.split()[0]) for text in column(page, "mean ± std [%]") if text != "hole"]
    assert numbers == sorted(numbers)
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "mean ± std [%]")[-6:] == ["hole"] * 6
    rising = column(page, "mean ± std [%]")
    assert rising != unsorted
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "mean ± std [%]")[0] == rising[-7]
    assert column(page, "mean ± std [%]")[-6:] == ["hole"] * 6
    page.keyboard.press("Tab")  # to the next head
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert column(page, "mean ± std [%]") == rising
    assert page.locator("th[aria-sort]").count() == 1


def test_every_control_is_reached_by_keyboard_and_seen_there(page):
    controls = "select, thead button, summary, [role=region], a"
    count = page.locator(controls).locator("visible=true").count()
    reached = set()
    for _ in range(count + 5):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "selector => { const own = document.activeElement, style = getComputedStyle(own);"
                "return own.matches(selector) && style.outlineStyle !== 'none'"
                " ? [...document.querySelectorAll(selector)].indexOf(own) : -1 }",
                controls,
            )
        )
    assert len(reached - {-1}) == count


def test_a_click_on_a_point_shows_its_training(page):
    before = page.locator("#curve-loss svg.marks").inner_html()
    page.get_by_label("EqCo (m = τ log α/K), lr 0.01, K 16: ").click()
    label = "simo, K 16, EqCo (m = τ log α/K), lr 0.01"
    page.wait_for_function(f"configuration.selectedOptions[0].text === '{label}'")
    page.wait_for_function("drawn['curve-images_per_s'].view.data('history').length === 4")
    assert page.locator("#curve-loss svg.marks").inner_html() != before


@pytest.mark.parametrize(("width", "media"), [(390, "screen"), (1280, "screen"), (700, "print")])
def test_nothing_is_cut_off(browser, page_file, width, media):
    with opened(browser, page_file, width) as page:
        page.emulate_media(media=media)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for chart in page.locator(".chart svg.marks").all():
            box = chart.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_the_page_says_where_its_numbers_came_from(seen, study_file):
    summary = json.loads((page_summary(study_file)).read_text())
    told = seen.get_by_role("main").inner_text()
    assert summary["dataset"] in told
    assert summary["provenance"]["hardware"] in told
    assert f"torch {summary['provenance']['versions']['torch']}" in told
    assert "snakemake --configfile params/tiny.yaml" in told
    parameters = yaml.safe_load(seen.locator("pre").last.inner_text())
    assert load_study(study_file).model_validate(parameters) == load_study(study_file)


def page_summary(study_file: Path) -> Path:
    return study_file.parents[1] / "results" / "tiny" / "cells" / FAILED / "pretrain.json"


def test_equal_files_give_equal_bytes(page_file, study_file, monkeypatch):
    """From another folder too, with relative paths, as Snakemake calls it."""
    monkeypatch.chdir(page_file.parent)
    studies.report(Path("../../params/tiny.yaml"), Path(), PUBLISHED)
    again = page_file.read_text()
    monkeypatch.undo()
    assert render(Grid(load_study(study_file)), page_file.parent, study_file, PUBLISHED) == again


def test_published_numbers_stand_beside_ours_with_the_difference(tmp_path):
    file = ROOT / "params" / "moco-cifar10-demo.yaml"
    study, results = load_study(file), tmp_path / "results" / "moco-cifar10-demo"
    make_up_cells(study, results)
    written = render(Grid(study), results, file, PUBLISHED)
    texts = re.sub("<[^>]+>", " ", written.split("<tbody>")[1])
    ours, difference = re.search(r"knn\s+1\s+([\d.]+)\s+\1\s+(\S+)[^M]+ 82\.6 MoCo", texts).groups()
    assert float(difference) == pytest.approx(float(ours) - 82.6)


def test_below_the_table_stands_what_noise_alone_does(browser, tmp_path):
    file = ROOT / "params" / "methods-fashion-mnist.yaml"
    shutil.copy(ROOT / "results" / file.stem / "cells.jsonl", tmp_path)
    studies.report(file, tmp_path, PUBLISHED)
    with opened(browser, tmp_path / "report.html") as page:
        told = page.get_by_role("region", name="Accuracies").locator("xpath=..").inner_text()
    assert "have the same losses in every epoch: their accuracies differ by seeds and" in told


def test_a_study_without_cells_is_all_holes(browser, study_file, tmp_path):
    results = tmp_path / "results" / "tiny"
    studies.report(study_file, results, PUBLISHED)
    with opened(browser, results / "report.html") as page:
        assert page.get_by_text("9 of them are holes").is_visible()
        assert page.locator("#against-simo").get_by_text("✕").count() == 5


@pytest.mark.slow
def test_a_thousand_cells_are_below_10_megabytes(browser, tiny_values, tmp_path):
    """How long it takes to open is in benchmarks/records.md."""
    study = study_of_1000_cells(tiny_values)
    results = tmp_path / "results" / "large"
    make_up_cells(study, results)
    file = results / "report.html"
    file.write_text(render(Grid(study), results, tmp_path / "large.yaml", PUBLISHED))
    assert file.stat().st_size < 10_000_000
    with opened(browser, file) as page:
        assert len(column(page, "K")) == 200 * 3
        assert page.get_by_text("100 of 200 epochs are shown, evenly spaced").is_visible()
        shown = page.evaluate("JSON.parse(document.getElementById('histories').textContent)[7][2]")
    assert shown["epoch"][:2] + shown["epoch"][-1:] == [1, 3, 200]
    assert len(shown["loss"]) == 100
