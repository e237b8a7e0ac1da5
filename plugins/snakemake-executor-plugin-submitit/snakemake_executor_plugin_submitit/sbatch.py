"""submitit's submission to SLURM: no text around an id is taken for it, no early signal is lost."""

import re
import shlex
import sys
import uuid
from pathlib import Path
from typing import Any

from submitit.core.core import Job
from submitit.core.utils import DelayedSubmission, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor, SlurmJob

START = Path(__file__).with_name("start.sh")


class Sbatch(SlurmExecutor):
    """Submits jobs to SLURM.

    Args:
        folder: of the jobs' files.
        requeues: maximum number of requeues of a job that is signalled before its Python can be.
    """

    def __init__(self, folder: Path, requeues: int) -> None:
        start = shlex.join(["sh", str(START), str(requeues), sys.executable])
        # RunCommand counts requeues, after time limits and preemptions alike: submitit need not
        super().__init__(folder, max_num_timeout=10**6, python=start)

    def _internal_process_submissions(
        self, delayed_submissions: list[DelayedSubmission]
    ) -> list[Job[Any]]:
        """Submit all by one sbatch; submitit's own would do so by a plain SlurmExecutor."""
        drafts = [self.folder / f"{uuid.uuid4().hex}.pkl" for _ in delayed_submissions]
        for delayed, draft in zip(delayed_submissions, drafts, strict=True):
            delayed.set_timeout(self.parameters.get("time", 5), self.max_num_timeout)
            delayed.dump(draft)
        if len(drafts) > 1:
            self.parameters["map_count"] = len(drafts)
        array = self._submit_command(self._submitit_command_str).job_id
        ids = [f"{array}_{i}" for i in range(len(drafts))] if len(drafts) > 1 else [array]
        jobs: list[Job[Any]] = [SlurmJob(self.folder, id_) for id_ in ids]
        for job, draft in zip(jobs, drafts, strict=True):
            job.paths.move_temporary_file(draft, "submitted_pickle")
        return jobs

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return ["sbatch", "--parsable", str(submission_file_path)]

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        """The id, alone in its line or before the cluster's name."""
        told = string if isinstance(string, str) else string.decode()
        ids = re.findall(r"^(\d+)(?:;\S+)?\s*$", told, re.M)
        if not ids:
            raise FailedSubmissionError(f"sbatch has told no id: {' '.join(told.split())[:200]}")
        return str(ids[-1])
