"""Snakemake jobs through submitit: ``snakemake --executor submitit``.

Snakemake finds this package by its name. Jobs that are ready together and ask for the same
resources become one array. One query per round gets the state of all jobs. A job is requeued when
its time ends or it is preempted. Jobs of a Snakemake that has died are adopted by the next one.
"""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase
from submitit import AutoExecutor, Job
from submitit.core.utils import FailedJobError, FailedSubmissionError

from snakemake_executor_plugin_submitit.clusters import CLUSTERS, State, why
from snakemake_executor_plugin_submitit.command import Outcome, RunCommand
from snakemake_executor_plugin_submitit.digests import Digests
from snakemake_executor_plugin_submitit.left_behind import ClusterJobs, LeftBehind
from snakemake_executor_plugin_submitit.records import Record, Records
from snakemake_executor_plugin_submitit.resources import parameters
from snakemake_executor_plugin_submitit.watched import Watched

FOLDER = ".snakemake/submitit"
SUBMISSION_TRIES = 6  # while slurmctld is down: waits 5 + 10 + ... + 80 s


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """The options ``--submitit-…`` of the command line."""

    cluster: str = field(
        default="slurm",
        metadata={"help": "slurm, or local (processes on this machine)."},
    )
    array_size: int = field(
        default=1000,
        metadata={"help": "Maximum number of jobs in one array: SLURM's MaxArraySize minus one."},
    )
    array_parallelism: int = field(
        default=256, metadata={"help": "Maximum number of jobs of one array that run at once."}
    )
    signal_seconds: int = field(
        default=90,
        metadata={
            "help": "Seconds before the time limit at which SLURM signals a job to save its state."
        },
    )
    requeues: int = field(
        default=100,
        metadata={
            "help": "Maximum number of requeues of a job, after time limits and preemptions."
        },
    )


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=True,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
)


class Executor(RemoteExecutor):
    """The executor: it submits, watches and cancels jobs."""

    def __post_init__(self) -> None:
        settings = self.workflow.executor_settings
        if settings.cluster not in CLUSTERS:
            raise WorkflowError(
                f"--submitit-cluster: {settings.cluster}: must be {', '.join(CLUSTERS)}"
            )
        self.folder = Path(FOLDER).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.records = Records(self.folder)
        self.digests = Digests(self.workflow.persistence)
        self.left_behind: LeftBehind | None = None  # read at the first submission
        self.unfinished: dict[JobExecutorInterface, SubmittedJobInfo] = {}
        self.warned: set[str] = set()
        try:
            self.cluster = CLUSTERS[settings.cluster]()
            self._submitter()  # raises if there is no such cluster here
        except (OSError, RuntimeError) as error:
            raise WorkflowError(f"--submitit-cluster: {settings.cluster}: {error}") from None

    def _submitter(self) -> AutoExecutor:
        cluster = self.workflow.executor_settings.cluster
        # RunCommand counts requeues, after time limits and preemptions alike: submitit need not
        return AutoExecutor(self.folder, cluster=cluster, **{f"{cluster}_max_num_timeout": 10**6})

    def get_job_args(self, job: JobExecutorInterface, **kwargs: Any) -> str:
        arguments: str = super().get_job_args(job, **kwargs)
        if job.is_group():
            # resources that the members share; the last --cores overrides the machine's
            return f"{arguments} {self.get_resource_declarations(job)} --cores {job.threads}"
        # without this Snakemake stays alive for a second after its work; a group keeps that second:
        # its members wait for each other, and it would look for work without a pause
        return f"{arguments} --max-jobs-per-timespan 100/0s"

    def run_job(self, job: JobExecutorInterface) -> None:
        self.run_jobs([job])

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        if self.left_behind is None:
            name = self.workflow.executor_settings.cluster
            records = [record for record in self.records if record.cluster == name]
            self.left_behind = LeftBehind(
                records, self.digests, self.cluster, self.folder, self.logger
            )
        fresh = []
        for job in jobs:
            self.run_job_pre(job)
            earlier = self.left_behind.take(job)
            if earlier.watched:
                ids = ", ".join(sorted(watched.id for watched in earlier.watched))
                self.logger.info(f"{job.name}: waits for {ids}, of a Snakemake that is gone")
                self._report(_info(job, ids, earlier))
            else:
                fresh.append(job)
        for info in self._submit(fresh):
            self._report(info)

    def _report(self, info: SubmittedJobInfo) -> None:
        self.unfinished[info.job] = info
        self.report_job_submission(info)

    # Submission

    def _submit(self, jobs: list[JobExecutorInterface]) -> list[SubmittedJobInfo]:
        """Submit jobs, those with equal parameters as one array; report errors."""
        alike: dict[str, list[JobExecutorInterface]] = {}
        for job in jobs:
            try:
                key = json.dumps(parameters(job), sort_keys=True)
            except WorkflowError as error:
                self._fail(SubmittedJobInfo(job), str(error))
            else:
                alike.setdefault(key, []).append(job)
        size = self.workflow.executor_settings.array_size
        submitted = []
        for key, members in alike.items():
            for chunk in (members[i : i + size] for i in range(0, len(members), size)):
                submitted += self._submit_array(chunk, json.loads(key))
        return submitted

    def _submit_array(
        self, jobs: list[JobExecutorInterface], resources: dict[str, Any]
    ) -> list[SubmittedJobInfo]:
        settings = self.workflow.executor_settings
        submitter = self._submitter()  # a new one, since parameters accumulate
        local = settings.cluster == "local"
        commands = [
            RunCommand(
                self.format_job_exec(job),
                os.getcwd(),
                settings.requeues,
                # submitit hides GPUs from local jobs, or gives all of them the same
                {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")} if local else {},
            )
            for job in jobs
        ]
        # digests before submission: a later change makes the job stale, not its outputs wrong
        makes = [self.digests.of(job) for job in jobs]
        try:
            submitter.update_parameters(
                **resources,
                slurm_array_parallelism=settings.array_parallelism,
                slurm_signal_delay_s=settings.signal_seconds,
            )
            submitted = self._patiently(submitter, commands)
        except (FailedJobError, FailedSubmissionError, OSError, ValueError, RuntimeError) as error:
            why = _sbatch_line(str(error))
            for job in jobs:
                self._fail(SubmittedJobInfo(job), f"{job.name}: was not submitted: {why}")
            return []
        infos = []
        for job, one, outputs in zip(jobs, submitted, makes, strict=True):
            self.records.add(Record(settings.cluster, one.job_id, outputs))
            watched = Watched(one.job_id, self.folder, one)
            infos.append(_info(job, one.job_id, ClusterJobs([watched], complete=True)))
        return infos

    def _patiently(self, submitter: AutoExecutor, commands: list[RunCommand]) -> list[Job[Outcome]]:
        """Submit, and retry while no controller can be reached, as during its restart."""
        for attempt in range(SUBMISSION_TRIES):
            try:
                return submitter.submit_array(commands)
            except (FailedJobError, FailedSubmissionError) as error:
                # after other errors the jobs may have been submitted
                if "Unable to contact slurm controller" not in str(error):
                    raise
                if attempt + 1 == SUBMISSION_TRIES:
                    raise
                seconds = 5 * 2**attempt
                self.logger.warning(f"sbatch reaches no controller; again in {seconds} s")
                time.sleep(seconds)
        raise AssertionError

    # Watching

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        if not active_jobs:
            return
        ids = {watched.id for info in active_jobs for watched in _watched(info)}
        async with self.status_rate_limiter:
            states = await asyncio.to_thread(self.cluster.states, ids)
        if states is None:
            self._warn_once("silent", "the scheduler does not answer; its jobs go on")
        else:
            self.warned.discard("silent")
        again = []
        for info in active_jobs:
            for watched in _watched(info):
                self._look(watched, states)
            if any(watched.ending is None for watched in _watched(info)):
                yield info
            elif _cluster_jobs(info).complete and not any(one.is_void for one in _watched(info)):
                self._finish(info)
            else:
                self._forget(info)
                again.append(info.job)
        for info in self._submit(again):
            self.unfinished[info.job] = info
            info.job.register(external_jobid=info.external_jobid)
            yield info

    def _look(self, watched: Watched, states: dict[str, State] | None) -> None:
        """Check whether a job has ended."""
        if watched.ending is None:
            watched.ask(self.workflow.executor_settings.requeues)
        if watched.ending is None and states is not None:
            state = states.get(watched.id)
            watched.hear(state, self.workflow.execution_settings.latency_wait)
            if state is not None and state.stuck:
                message = f"{watched.id} waits until somebody acts: {state.reason}"
                self._warn_once(watched.id, message)

    def _finish(self, info: SubmittedJobInfo) -> None:
        """Report the success or failure of a job that has ended."""
        if failed := [watched for watched in _watched(info) if watched.ending]:
            message = "; ".join(f"{one.id} {one.ending}; log: {one.log}" for one in failed)
            self._fail(info, message, [one.log for one in failed])
        else:
            self.unfinished.pop(info.job, None)
            self._forget(info)
            self.report_job_success(info)

    def _fail(self, info: SubmittedJobInfo, message: str, logs: Sequence[Path] = ()) -> None:
        self.unfinished.pop(info.job, None)
        self._forget(info)
        if info.job.is_group():  # Snakemake prints the message for single jobs only
            self.logger.error(message)
        self.report_job_error(info, msg=f"{message}. ", aux_logs=[str(log) for log in logs])

    def _forget(self, info: SubmittedJobInfo) -> None:
        """Delete the files of ended jobs in the folder, except the logs of failures."""
        for watched in _watched(info):
            self.records.remove(watched.id)
            if watched.stale or not watched.ending:
                for path in self.folder.glob(f"{watched.id}_*"):
                    path.unlink(missing_ok=True)

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self.warned:
            self.warned.add(key)
            self.logger.warning(message)

    # The end

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        # active_jobs lacks the jobs whose states are being queried; another thread finishes some
        ids = {one.id for info in list(self.unfinished.values()) for one in _watched(info)}
        try:
            self.cluster.cancel(ids)
        except (OSError, subprocess.SubprocessError) as error:
            self.logger.error(f"jobs may still run, scancel failed: {why(error)}")
            return
        for id_ in ids:
            self.records.remove(id_)


def _info(job: JobExecutorInterface, ids: str, cluster_jobs: ClusterJobs) -> SubmittedJobInfo:
    return SubmittedJobInfo(job, ids, {"jobs": cluster_jobs})


def _cluster_jobs(info: SubmittedJobInfo) -> ClusterJobs:
    """The state of a Snakemake job; a job that was never submitted has no jobs on the cluster."""
    return info.aux["jobs"] if info.aux else ClusterJobs([], complete=False)


def _watched(info: SubmittedJobInfo) -> list[Watched]:
    """The jobs on the cluster that make a Snakemake job's outputs."""
    return _cluster_jobs(info).watched


def _sbatch_line(message: str) -> str:
    """The reason in submitit's message about a failed sbatch."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("sbatch: error:")]
    return " ".join(errors) or (lines[-1] if lines else "")
