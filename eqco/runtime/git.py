"""Git, asked about a folder; silent where there is none."""

import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command, without the white space around it; empty if it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
