"""Snakemake jobs through submitit: ``snakemake --executor submitit``.

Snakemake finds this package by its name. Jobs that are ready together and ask for the same
resources become one array. One query per round gets the state of all jobs. A job is requeued when
its time ends or it is preempted. Jobs of a Snakemake that has died are adopted by the next one.
"""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings

from snakemake_executor_plugin_submitit import efficiency
from snakemake_executor_plugin_submitit.clusters import CLUSTERS, State, why
from snakemake_executor_plugin_submitit.command import RunCommand
from snakemake_executor_plugin_submitit.digests import Digests
from snakemake_executor_plugin_submitit.left_behind import ClusterJobs, LeftBehind
from snakemake_executor_plugin_submitit.resources import parameters
from snakemake_executor_plugin_submitit.runs import Run, array_of, earlier_runs
from snakemake_executor_plugin_submitit.settings import ExecutorSettings as ExecutorSettings
from snakemake_executor_plugin_submitit.submission import Refused, Submission, Wait
from snakemake_executor_plugin_submitit.watched import Watched, by_name

FOLDER = ".snakemake/submitit"
SLOWER, SLOWEST = 1.5, 6  # the scheduler is asked more and more rarely while no job ends
MARGIN = 600  # seconds that clocks may differ by, when accounting is asked for what ended lately
# an enclosing job's, which sbatch would pass on
ENCLOSING = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "PMI_", "PMIX_", "SUBMITIT_")
OF_THE_SITE = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SUBMITIT_PREEMPT_SIGNAL")


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,  # sbatch passes them on; a command line is public
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
)


class Executor(RemoteExecutor):
    """The executor: it submits, watches and cancels jobs.

    Snakemake's thread hands jobs over (``run_jobs``); the thread that checks them submits them, so
    that neither waits for a slow scheduler.
    """

    def __post_init__(self) -> None:
        # the thread that checks jobs has begun; a cluster may take seconds to say what it is
        self.loop: asyncio.AbstractEventLoop | None = None
        self.awake = asyncio.Event()
        self.cancelled = self.stopping = False
        settings = self.workflow.executor_settings
        if settings.cluster not in CLUSTERS:
            raise WorkflowError(
                f"--submitit-cluster: {settings.cluster}: must be {', '.join(CLUSTERS)}"
            )
        for name in [name for name in os.environ if name.startswith(ENCLOSING)]:
            if name not in OF_THE_SITE:
                del os.environ[name]
        folder = Path(FOLDER).absolute()
        self.efficiency = folder / "efficiency.csv"
        try:
            self.cluster = CLUSTERS[settings.cluster]()
            self.run = Run.start(folder, settings.cluster)
            self.submission = Submission(
                run=self.run,
                cluster=self.cluster,
                array_size=settings.array_size,
                parallelism=settings.array_parallelism,
                signal_seconds=settings.signal_seconds,
                requeues=settings.requeues,
            )
            self.submission.submitter()  # raises if there is no such cluster here
        except (OSError, RuntimeError) as error:
            raise WorkflowError(f"--submitit-cluster: {settings.cluster}: {error}") from None
        self.earlier = {run.folder: run for run in earlier_runs(folder, but=self.run)}
        self.digests = Digests(self.workflow.persistence)
        self.left_behind: LeftBehind | None = None  # read at the first submission
        self.unfinished: dict[JobExecutorInterface, SubmittedJobInfo] = {}
        self.warned: set[str] = set()
        self.answered = self.run.started  # when the scheduler was last asked with success
        self.next_question, self.pause = 0.0, 0.0
        base = self.next_seconds_between_status_checks
        if self.cluster.forgets < 2 * base:
            self.logger.warning(
                f"SLURM forgets a job {self.cluster.forgets} s after its end (MinJobAge): "
                f"--seconds-between-status-checks {base}: should be at most half of that"
            )

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
        for job in jobs:
            self.run_job_pre(job)
            self.unfinished[job] = info = SubmittedJobInfo(job, None, {"jobs": None})
            self.report_job_submission(info, register_job=False)
        self._wake()

    # Submission

    def _submit(self, waiting: list[SubmittedJobInfo], room: int) -> None:
        """Submit jobs, those with equal parameters as one array; report errors.

        Args:
            waiting: the jobs, of which those of the highest priority come first.
            room: the number of jobs that the cluster may have more than now.
        """
        settings = self.workflow.executor_settings
        if self.left_behind is None:
            if not self.cluster.is_known():  # an earlier run's jobs may be another cluster's
                message = "submission: the scheduler does not answer; jobs wait until it does"
                self._warn_once("submission", message)
                return
            self.run.settle(self.cluster.where)
            runs = [*self.earlier.values()]
            try:
                self.left_behind = LeftBehind(
                    runs, self.digests, self.cluster, settings.cluster, self.logger
                )
            except (OSError, subprocess.SubprocessError) as error:
                self._warn_once("submission", f"submission: {why(error)}; jobs wait")
                return
            self._delete_old_logs()
        alike: dict[str, list[SubmittedJobInfo]] = {}
        new = [info for info in waiting if not self._adopt(info, self.left_behind)]
        new.sort(key=lambda info: -cast(Any, info.job).priority)
        signal_seconds = settings.signal_seconds * (settings.cluster == "slurm")
        for info in new[: max(0, room - len(waiting) + len(new))]:
            try:
                key = json.dumps(parameters(info.job, signal_seconds), sort_keys=True)
            except WorkflowError as error:
                self._fail(info, str(error))
            else:
                alike.setdefault(key, []).append(info)
        self.left_behind.cancel_stale()
        try:
            for key, members in alike.items():
                while members and not self.cancelled:
                    count = self.submission.size
                    self._submit_array(members[:count], json.loads(key))
                    members = members[count:]
        except Wait as error:
            self._warn_once("submission", f"submission: {error}")
        else:
            self.warned.discard("submission")
        if self.cancelled:  # while it was submitted
            self.cancel_jobs([])

    def _adopt(self, info: SubmittedJobInfo, left_behind: LeftBehind) -> bool:
        """Leave a job to those of a dead Snakemake that are making it; whether that is its end."""
        try:
            earlier = left_behind.take(info.job)
        except WorkflowError as error:
            self._fail(info, str(error))
            return True
        if not earlier.watched:
            return False
        ids = ", ".join(sorted(watched.id for watched in earlier.watched))
        self.logger.info(f"{info.job.name}: waits for {ids}, of a Snakemake that is gone")
        self._watch(info, ids, earlier)
        return True

    def _submit_array(self, members: list[SubmittedJobInfo], resources: dict[str, Any]) -> None:
        settings = self.workflow.executor_settings
        # submitit hides GPUs from local jobs, or gives all of them the same
        local = settings.cluster == "local"
        gpus = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")} if local else {}
        commands = [
            RunCommand(self.format_job_exec(info.job), os.getcwd(), settings.requeues, gpus)
            for info in members
        ]
        # digests before submission: a later change makes the job stale, not its outputs wrong
        outputs = [self.digests.of(info.job) for info in members]
        if settings.setup:
            resources["slurm_setup"] = [settings.setup]
        try:
            name, ids = self.submission.submit(commands, outputs, resources, _comment(members))
        except Refused as error:
            for info in members:
                self._fail(info, f"{info.job.name}: was not submitted: {error}")
            return
        for info, id_ in zip(members, ids, strict=True):
            watched = Watched(id_, name, self.run.folder)
            self._watch(info, id_, ClusterJobs([watched], complete=True))

    def _watch(self, info: SubmittedJobInfo, ids: str, jobs: ClusterJobs) -> None:
        info.external_jobid, info.aux = ids, {"jobs": jobs}
        info.job.register(external_jobid=ids)

    # Watching

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        self.loop = asyncio.get_running_loop()
        if not active_jobs:
            return
        waiting = [info for info in active_jobs if not _watched(info)]
        running = len(active_jobs) - len(waiting)
        room = max(0, self.workflow.executor_settings.max_jobs - running)
        if self.submission.is_due(min(len(waiting), room), running) and not self.cancelled:
            await asyncio.to_thread(self._submit, waiting, room)
        unfinished = len(self.unfinished)
        submitted = [info for info in active_jobs if _watched(info)]
        await self._ask(submitted)
        for info in active_jobs:
            if info.job not in self.unfinished:
                continue  # it was refused
            if not _watched(info) or any(watched.ending is None for watched in _watched(info)):
                yield info
            elif _cluster_jobs(info).complete and not any(one.is_void for one in _watched(info)):
                self._finish(info)
            else:
                self._forget(info)
                info.external_jobid, info.aux = None, {"jobs": None}
                yield info
        if len(waiting) > room and len(self.unfinished) < unfinished:
            self.awake.set()  # others take the room now, not after a pause

    async def _ask(self, submitted: list[SubmittedJobInfo]) -> None:
        """Look for the outcomes of jobs; now and then, ask the scheduler for the others' states."""
        settings = self.workflow.executor_settings
        jobs = [watched for info in submitted for watched in _watched(info)]
        for folder in {watched.folder for watched in jobs}:
            with suppress(OSError):
                os.utime(folder)  # or a network file system may remember that a file was not there
        for watched in jobs:
            if watched.ending is None:
                watched.ask(settings.requeues)
        left = [watched for watched in jobs if watched.ending is None]
        if not left or time.monotonic() < self.next_question:
            return
        ids, names = {watched.id for watched in left}, {watched.name for watched in left}
        asked = time.time()
        async with self.status_rate_limiter:
            states = await asyncio.to_thread(
                self.cluster.states, ids, names, self.answered - MARGIN
            )
        if states is None:
            self._warn_once("silent", "the scheduler does not answer; its jobs go on")
        else:
            self.answered = asked
            self.warned.discard("silent")
            for watched in left:
                self._hear(watched, states.get(watched.id))
        base = self.next_seconds_between_status_checks
        ended = len(left) < len(jobs) or any(watched.ending is not None for watched in left)
        self.pause = base if ended else min(max(self.pause, base) * SLOWER, SLOWEST * base)
        self.next_question = time.monotonic() + min(self.pause, self.cluster.forgets / 2)

    def _hear(self, watched: Watched, state: State | None) -> None:
        latency = self.workflow.execution_settings.latency_wait
        watched.hear(state, latency, self.cluster.patience)
        if state is not None and state.stuck:
            message = f"{watched.id} waits until somebody acts: {state.reason}"
            self._warn_once(watched.id, message)
        if state is not None and state.name == "NODE_FAIL" and state.node:
            self.submission.excluded.add(state.node)  # for what is submitted from now on

    def _finish(self, info: SubmittedJobInfo) -> None:
        """Report the success or failure of a job that has ended."""
        if failed := [watched for watched in _watched(info) if watched.ending]:
            for watched in failed:
                if watched.may_run:  # unknown is not dead
                    self._cancel([watched.id], watched.name)
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
        """Delete the files of ended jobs, except the logs of failures."""
        for watched in _watched(info):
            self._run_of(watched).end(watched.id)
            if watched.outcome and not watched.stale:
                with suppress(OSError):  # a full disk costs a line, no job
                    efficiency.append(self.efficiency, watched.id, info.job, watched.outcome)
            if watched.stale or not watched.ending:
                for path in watched.files:
                    if path != watched.log or not self.workflow.executor_settings.keep_logs:
                        path.unlink(missing_ok=True)

    def _run_of(self, watched: Watched) -> Run:
        return self.earlier.get(watched.folder, self.run)

    def _delete_old_logs(self) -> None:
        """Delete the folders of earlier runs without a job that may be alive, when they are old."""
        oldest = time.time() - 86400 * self.workflow.executor_settings.log_days
        for run in self.earlier.values():
            if not run.unfinished and run.folder.stat().st_mtime < oldest:
                shutil.rmtree(run.folder, ignore_errors=True)

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self.warned:
            self.warned.add(key)
            self.logger.warning(message)

    # Between two rounds

    async def sleep(self) -> None:
        if not self.stopping:
            pause = self.next_seconds_between_status_checks
            with suppress(TimeoutError):
                await asyncio.wait_for(self.awake.wait(), pause)
            self.awake.clear()

    def _wake(self) -> None:
        """Begin the next round now."""
        if self.loop:
            self.loop.call_soon_threadsafe(self.awake.set)

    # The end

    def shutdown(self) -> None:
        self.stopping = True
        self._wake()
        super().shutdown()
        for run in (self.run, *self.earlier.values()):
            if run.folder.exists():
                run.close()

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        self.cancelled = True
        # active_jobs lacks the jobs whose states are being queried; another thread finishes some
        watched = [one for info in list(self.unfinished.values()) for one in _watched(info)]
        if self.workflow.executor_settings.detach:
            if watched:
                self.logger.warning(
                    f"{len(watched)} jobs go on; start Snakemake again to adopt them"
                )
            return
        for name, some in by_name(watched).items():
            # all of this run's own are to end: an array by its own id
            ids = {one.id if one.adopted else array_of(one.id) for one in some}
            if self._cancel(sorted(ids), name):
                for one in some:
                    self._run_of(one).end(one.id)

    def _cancel(self, ids: list[str], name: str) -> bool:
        try:
            self.cluster.cancel(ids, name)
        except (OSError, subprocess.SubprocessError) as error:
            self.logger.error(f"jobs may still run, scancel failed: {why(error)}")
            return False
        return True


def _cluster_jobs(info: SubmittedJobInfo) -> ClusterJobs:
    """The state of a Snakemake job; a job that is not submitted has no jobs on the cluster."""
    return (info.aux or {}).get("jobs") or ClusterJobs([], complete=False)


def _watched(info: SubmittedJobInfo) -> list[Watched]:
    """The jobs on the cluster that make a Snakemake job's outputs."""
    return _cluster_jobs(info).watched


def _comment(members: list[SubmittedJobInfo]) -> str:
    """The rule and wildcards of a job, or the rule and number of jobs of an array."""
    job = members[0].job
    if len(members) > 1 or job.is_group():
        return f"{job.name}: {len(members)} jobs"
    wildcards = ", ".join(f"{name}={value}" for name, value in job.wildcards_dict.items())
    return " ".join(f"{job.name}: {wildcards}".split())[:200]
