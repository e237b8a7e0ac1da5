"""What README and docs show is so."""

import re

import pytest
import torch
from helpers import ROOT

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "params" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page):
    names = {"positive": torch.rand(4), "negatives": torch.rand(4, 16)}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        if not block.startswith('"'):  # a line of a table, tested in test_adding_a_method
            exec(block, names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_commands_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.M):
        assert f"\n{command}:" in makefile
    for study in re.findall(r"--configfile (\S+)", (ROOT / "README.md").read_text()):
        assert (ROOT / study).exists()
