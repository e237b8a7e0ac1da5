"""Digests of everything that an output depends on: they show whether an old job is still valid."""

import hashlib
import json
import os
import re
from collections.abc import Collection
from typing import Any

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

ADDRESS = re.compile(r"\bat 0x[0-9a-f]+")  # of an object in memory: differs between processes


def members(job: JobExecutorInterface) -> list[Any]:
    """The jobs of a group, or the job itself."""
    return list(job.jobs) if job.is_group() else [job]


class Digests:
    """Digests of all that Snakemake considers when it decides whether to rerun a job.

    Rule, code, parameters, input names and software are those of Snakemake's own records. An input
    counts by content if Snakemake compares its content, else by time and size.

    Args:
        persistence: Snakemake's records.
    """

    def __init__(self, persistence: Any) -> None:
        self.persistence = persistence
        self.contents: dict[tuple[str, int, int], str] = {}  # each version of a file is read once

    def of(
        self, job: JobExecutorInterface, outputs: Collection[str] | None = None
    ) -> dict[str, str]:
        """Each output of a job, or of the jobs of a group, with its digest.

        Args:
            job: the job.
            outputs: of the job on the cluster; default: of this job. If they are inputs of other
                members, they count by name alone: they need not exist yet, and have own digests.
        """
        if outputs is None:
            outputs = {str(output) for member in members(job) for output in member.output}
        digests: dict[str, str] = {}
        for member in members(job):
            inputs = [f for f in member.input if str(f) not in outputs and not f.is_ancient]
            dependencies = [
                member.rule.name,
                self.persistence._code(member.rule),
                member.shellcmd,
                self._script(member),
                self.persistence._params(member),
                self.persistence._input(member),
                self.persistence._software_stack_hash(member),
                {str(f): self._version(str(f)) for f in inputs},
            ]
            text = ADDRESS.sub("", json.dumps(dependencies, sort_keys=True))
            digest = hashlib.sha256(text.encode()).hexdigest()
            digests |= {str(output): digest for output in member.output}
        return digests

    def _script(self, member: Any) -> str | None:
        """The version of a script or notebook; that of one from the network is its address."""
        name = member.rule.script or member.rule.notebook
        if not name:
            return None
        path = member._path_to_source_file(name).get_path_or_uri(secret_free=True)
        return self._version(path) or path

    def _version(self, path: str) -> str | None:
        """The version of a file or folder, by content or by time and size; None if missing."""
        timestamp = os.path.join(path, ".snakemake_timestamp")
        try:
            # Snakemake's timestamp of a folder: the folder's own changes with every file in it
            status = os.stat(timestamp if os.path.exists(timestamp) else path)
            limit = self.persistence.max_checksum_file_size
            if not os.path.isfile(path) or status.st_size > limit:
                return f"{status.st_mtime_ns} {status.st_size}"
            key = (path, status.st_mtime_ns, status.st_size)
            if key not in self.contents:
                with open(path, "rb") as file:
                    self.contents[key] = hashlib.file_digest(file, "sha256").hexdigest()
            return self.contents[key]
        except OSError:
            return None
