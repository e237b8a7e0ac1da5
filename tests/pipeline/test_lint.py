"""Snakemake's linter finds nothing in the workflow but that no rule has an environment of its own.

Every rule runs a command of the installed package, by the Python that runs Snakemake.
"""

import re
import subprocess
import sys

from helpers import ROOT

ALLOWED = "Specify a conda environment or container for each rule.:"


def test_the_linter_asks_for_environments_alone():
    command = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    complaints = re.findall(r"^    \* (.*)$", done.stderr, re.M)
    assert complaints, done.stderr
    assert set(complaints) == {ALLOWED}, done.stderr
