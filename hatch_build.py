"""Puts the revision that a wheel is built from into it, as eqco/REVISION."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Revision(BuildHookInterface):
    """Runs before a wheel or a source distribution is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file, unless the build is editable or from a source distribution that has it."""
        if version == "editable" or Path(self.root, "eqco", "REVISION").exists():
            return
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        told = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        file = Path(tempfile.mkdtemp(), "REVISION")
        file.write_text(told.stdout)
        build_data["force_include"][str(file)] = "eqco/REVISION"
