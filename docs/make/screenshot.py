"""Takes docs/figures/report.png: the top of the demo's report, as Chromium shows it.

``snakemake --configfile params/demo.yaml`` makes the report first. No test compares the picture
with today's page.
"""

import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from eqco.runtime.files import write

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "results" / "demo" / "report.html"
OUT = ROOT / "docs" / "figures" / "report.png"
SIZE = {"width": 800, "height": 735}


def take(report: Path = REPORT, out: Path = OUT) -> None:
    """Write the picture, in 128 colours, of which a page of text and lines needs no more."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(report.as_uri())
        page.locator("svg.marks, canvas.marks").first.wait_for()
        taken = page.screenshot()
        browser.close()
    content = BytesIO()
    with Image.open(BytesIO(taken)) as image:
        image.convert("RGB").quantize(128).save(content, "png", optimize=True)
    write(out, content.getvalue())


if __name__ == "__main__":
    take()
