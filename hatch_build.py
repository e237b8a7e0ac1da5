"""Puts into a wheel its revision, as eqco/REVISION, and what `eqco new` needs, as eqco/project/.

At a release's tag the version is the tag's, or nothing is built.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Additions(BuildHookInterface):
    """Runs before a wheel or a source distribution is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files, unless the build is editable, which has them in the clone."""
        if version == "editable":
            return
        if self.target_name == "wheel":
            for name in self.config["project"]:
                build_data["force_include"][str(Path(self.root, name))] = f"eqco/project/{name}"
        if not Path(self.root, "eqco", "REVISION").exists():  # a source distribution has it
            self._add_revision(build_data)

    def _add_revision(self, build_data: dict[str, Any]) -> None:
        tags = self._git("tag", "--points-at", "HEAD", "--list", "v[0-9]*").split()
        if tags and f"v{self.metadata.version}" not in tags:
            raise ValueError(
                f"eqco/__init__.py: __version__: {self.metadata.version}: this commit is tagged "
                f"{', '.join(tags)}; the version must be the tag's"
            )
        file = Path(tempfile.mkdtemp(), "REVISION")
        file.write_text(self._git("describe", "--always", "--dirty", "--abbrev=12"))
        build_data["force_include"][str(file)] = "eqco/REVISION"

    def _git(self, *arguments: str) -> str:
        """The output of a git command; empty where there is no repository."""
        command = ["git", *arguments]
        told = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        return told.stdout
