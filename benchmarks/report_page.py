"""A report of 1,000 cells of 200 epochs each: python benchmarks/report_page.py [--n 5]

Prints one JSON line: megabytes of the page; seconds until it is made, from made-up records; and
seconds from a fresh Chromium's call to open it until all charts are drawn.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import yaml
from playwright.sync_api import sync_playwright
from report import report

from eqco.report import page

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from helpers import CHROMIUM_FLAGS, TINY, make_up_cells, study_of_1000_cells  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=5)
    arguments = parser.parse_args()
    study = study_of_1000_cells(yaml.safe_load(TINY.read_text()))
    figures: dict[str, list[float]] = {"made": [], "opened": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        results = Path(folder, "results", study.study)
        make_up_cells(study, results)
        file = results / "report.html"
        for _ in range(arguments.n):
            start = time.perf_counter()
            file.write_text(
                page.report(study, results, TINY, ROOT / "published" / "accuracies.csv")
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


if __name__ == "__main__":
    main()
