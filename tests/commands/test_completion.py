"""Completion by the shells' protocol: environment variables in, a line per word out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, TINY, cold, eqco

from eqco.study.grid import Grid
from eqco.study.load import load_study

EQCO = Path(sys.executable).parent / "eqco"
ALL = list(Grid(load_study(TINY)).cells)
STUDY = str(TINY)


def run(**environment: str) -> str:
    done = subprocess.run(
        [EQCO], env={**cold(ROOT), **environment}, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


def completed(line: str) -> list[str]:
    """The words that bash offers at the end of a line."""
    place = str(len(line.split(" ")) - 1)
    return run(_EQCO_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=place).split()


@pytest.mark.parametrize("before", ["", "--threads 2 ", "--data data/digits --out x "])
@pytest.mark.parametrize("option", ["--cell ", "--cell="])
def test_the_cells_of_the_study_on_the_line(before, option):
    line = f"eqco pretrain {before}{STUDY} {option}"
    assert completed(line) == ALL
    start = ALL[0].rpartition("/")[0]
    expected = [cell for cell in ALL if cell.startswith(start)]
    assert 0 < len(expected) < len(ALL)
    assert completed(line + start) == expected


@pytest.mark.parametrize(
    "line",
    [
        "eqco pretrain --cell ",
        "eqco pretrain none.yaml --cell ",
        f"eqco pretrain {ROOT / 'README.md'} --cell ",
        f"eqco pretrain {STUDY} --cell nothing",
    ],
)
def test_without_a_study_nothing_is_offered_and_nothing_printed(line):
    assert completed(line) == []


def test_commands_and_options():
    assert completed("eqco pre") == ["prepare", "pretrain"]
    assert completed("eqco pretrain --ce") == ["--cell"]


def test_bash_itself_completes_a_cell(tmp_path):
    """Its own function, as --install-completion sets it up, called as the tab key calls it."""
    script = run(_EQCO_COMPLETE="source_bash")
    (tmp_path / "script").write_text(
        f"{script}\nCOMP_WORDS=(eqco pretrain {STUDY} --cell {ALL[0][:-1]})\nCOMP_CWORD=4\n"
        "_eqco_completion eqco\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    path = f"{EQCO.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", tmp_path / "script"],
        env={**cold(ROOT), "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [cell for cell in ALL if cell.startswith(ALL[0][:-1])]


def test_installing_it_writes_to_the_home_alone(tmp_path):
    environment = {
        **cold(ROOT),
        "HOME": str(tmp_path),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        [EQCO, "--install-completion", "bash"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "completion installed" in done.stdout
    assert "_EQCO_COMPLETE" in (tmp_path / ".bash_completions" / "eqco.sh").read_text()


def test_both_ways_to_call_it_have_one_name():
    assert " eqco pretrain [OPTIONS] " in eqco("pretrain", "--help").stdout
