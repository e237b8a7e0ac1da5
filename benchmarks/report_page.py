"""Size of a large report, and seconds to make and open it.

The report is of 1,000 made-up cells of 200 epochs each. Prints one JSON line: megabytes of the
page, seconds to make it, and seconds until a fresh Chromium has drawn all charts.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import yaml
from playwright.sync_api import sync_playwright

from benchmarks._measure import ROOT, arguments, report
from eqco.report import page
from eqco.study.grid import Grid

sys.path.append(str(ROOT / "tests"))

from helpers import CHROMIUM_FLAGS, TINY, make_up_cells, study_of_1000_cells


def main() -> None:
    options = arguments(__doc__, n=5).parse_args()
    study = study_of_1000_cells(yaml.safe_load(TINY.read_text()))
    figures: dict[str, list[float]] = {"made": [], "opened": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        results = Path(folder, "results", study.study)
        make_up_cells(study, results)
        file = results / "report.html"
        for _ in range(options.n):
            start = time.perf_counter()
            file.write_text(
                page.render(Grid(study), results, TINY, ROOT / "published" / "accuracies.csv")
            )
            figures["made"].append(time.perf_counter() - start)
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS
            )
            tab = browser.new_page()
            start = time.perf_counter()
            tab.goto(file.as_uri())
            tab.wait_for_selector("body[data-drawn]")
            figures["opened"].append(time.perf_counter() - start)
            browser.close()
        megabytes = round(file.stat().st_size / 1e6, 2)
    report({"study": "1,000 cells, 200 epochs", "unit": "s"}, figures, megabytes=megabytes)
