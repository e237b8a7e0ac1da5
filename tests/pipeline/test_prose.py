"""Prose: docstrings begin with a thing or an action, not with a relative clause."""

import ast
import re
from pathlib import Path

import pytest
from helpers import PACKAGES, ROOT

# "What is kept of a study" hides its noun; "An archive of a study" does not
OPENINGS = re.compile(r"(What|Of|Where|How|By|As|From|Be|Over)\b")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_docstring_begins_with_what_a_thing_is_or_does(path: Path):
    nodes = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    docstrings = [ast.get_docstring(node) or "" for node in nodes]
    assert [text for text in docstrings if OPENINGS.match(text)] == []
