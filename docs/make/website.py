"""Builds the site: README, every page that it leads to, and the API, in one folder.

Pages are read on a code host first, so their links are of files. The site has the files in the same
folders, where each link leads to the same page. zensical checks every link and anchor.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#\s]+)|\b(?:src|srcset)=\"([^\"]+)\"")
API = ("eqco", "snakemake_executor_plugin_submitit", "snakemake_logger_plugin_eqco")
WARNINGS = (  # of pdoc: all are errors, but for these
    *("-W", "error"),
    *("-W", "ignore:Cannot determine where eqco.study.axes.With"),  # its keys have dots
    *("-W", "ignore:Error parsing type annotation"),  # that only a type checker reads
)


def build(out: Path, api: Iterable[str] = API) -> None:
    """Build the site.

    Args:
        out: folder for it; what it held is replaced.
        api: the modules of the API reference, with all below them.

    Raises:
        subprocess.CalledProcessError: a link or an anchor leads nowhere, or a module has an error.
    """
    with TemporaryDirectory() as temporary:
        source, site = Path(temporary, "pages"), Path(temporary, "site")
        shutil.copytree(HERE / "assets", source / "assets")
        for file in reached(ROOT / "README.md", DOCS / "README.md"):
            copy = source / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        _document(api, source / "api")
        settings = {"docs_dir": source.name, "site_dir": site.name, "nav": navigation()}
        config = Path(temporary, "zensical.yml")
        config.write_text((HERE / "zensical.yml").read_text() + yaml.safe_dump(settings))
        _run("-m", "zensical", "build", "--strict", "--config-file", config)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(site, out)


def _document(modules: Iterable[str], out: Path) -> None:
    options = ("--docformat", "google", "--template-directory", HERE / "pdoc", "-o", out)
    _run(*WARNINGS, "-m", "pdoc", *options, *modules)
    for page in out.rglob("*.html"):  # a screen reader reads the links at headings
        named = page.read_text().replace('class="headerlink"', 'class="headerlink" title="link"')
        page.write_text(named)


def reached(*starts: Path) -> set[Path]:
    """Pages, and all files that they lead to by the links of pages."""
    files, unread = {*starts}, [*starts]
    while unread:
        page = unread.pop()
        links = ("".join(groups) for groups in LINK.findall(page.read_text()))
        new = {(page.parent / link).resolve() for link in links if "://" not in link} - files
        files |= new
        unread += [file for file in new if file.suffix == ".md"]
    return files


def navigation() -> list[dict[str, list[dict[str, str]]]]:
    """The sections of docs/README.md with their pages, and the API."""
    sections: dict[str, list[dict[str, str]]] = {}
    index = (DOCS / "README.md").read_text()
    for section, title, link in re.findall(r"^## (.+)|^- \[(.+?)\]\((.+?)\)", index, re.M):
        if section:
            pages = sections[section] = []
        else:
            pages.append({title: str((DOCS / link).resolve().relative_to(ROOT))})
    sections["Reference"].append({"API": "api/index.html"})
    return [{section: pages} for section, pages in sections.items()]


def _run(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, *arguments], check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
