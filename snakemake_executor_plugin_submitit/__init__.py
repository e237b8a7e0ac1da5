"""Snakemake jobs through submitit: ``snakemake --executor submitit``.

Snakemake finds this package by its name. Jobs that are ready together and ask for the same
resources are one array; one question a round asks for the state of all; a job is requeued when its
time ends or it is preempted; jobs that a Snakemake left behind are waited for by the next.
"""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase
from submitit import AutoExecutor, Job
from submitit.core.utils import FailedJobError, FailedSubmissionError, JobPaths, pickle_load

from snakemake_executor_plugin_submitit.clusters import CLUSTERS, State
from snakemake_executor_plugin_submitit.command import Outcome, RunCommand
from snakemake_executor_plugin_submitit.records import Record, Records, outputs
from snakemake_executor_plugin_submitit.resources import parameters

FOLDER = ".snakemake/submitit"
SUBMISSION_TRIES = 6  # of an sbatch that reaches no controller: two and a half minutes
CANCELLED_BY_US = "is cancelled: it runs with other parameters"


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """``--submitit-…`` on the command line."""

    cluster: str = field(
        default="slurm",
        metadata={
            "help": "slurm, local (processes on this machine) or debug (in Snakemake's process)."
        },
    )
    array_size: int = field(
        default=1000,
        metadata={"help": "Jobs in one array at most; SLURM's MaxArraySize less one."},
    )
    array_parallelism: int = field(
        default=256, metadata={"help": "Jobs of one array that run at once, at most."}
    )
    signal_seconds: int = field(
        default=90,
        metadata={"help": "So long before its time ends a SLURM job is told to save its state."},
    )
    requeues: int = field(
        default=100,
        metadata={"help": "Requeues of a job, after time limits and preemptions, at most."},
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
    """Submits, watches and cancels."""

    def __post_init__(self) -> None:
        settings = self.workflow.executor_settings
        if settings.cluster not in CLUSTERS:
            raise WorkflowError(
                f"--submitit-cluster: {settings.cluster}: must be {', '.join(CLUSTERS)}"
            )
        self.folder = Path(FOLDER).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.records = Records(self.folder)
        self.left_behind: dict[str, Record] | None = None  # by output; read when it is needed
        self.unfinished: dict[JobExecutorInterface, SubmittedJobInfo] = {}
        self.warned: set[str] = set()
        try:
            self.cluster = CLUSTERS[settings.cluster]()
            self._submitter()  # is there such a cluster here?
        except (OSError, RuntimeError) as error:
            raise WorkflowError(f"--submitit-cluster: {settings.cluster}: {error}") from None

    def _submitter(self) -> AutoExecutor:
        cluster = self.workflow.executor_settings.cluster
        # RunCommand counts requeues, of time limits and preemptions alike; submitit need not
        limit = {} if cluster == "debug" else {f"{cluster}_max_num_timeout": 10**6}
        return AutoExecutor(self.folder, cluster=cluster, **limit)

    def additional_general_args(self) -> str:
        # the default keeps every job's Snakemake alive for a second after its work is done
        return "--max-jobs-per-timespan 100/0s"

    def run_job(self, job: JobExecutorInterface) -> None:
        self.run_jobs([job])

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        fresh = []
        for job in jobs:
            self.run_job_pre(job)
            if earlier := self._left_behind(job):
                ids = ", ".join(sorted(earlier))
                self.logger.info(f"{job.name}: waits for {ids}, of a Snakemake that is gone")
                self._report(SubmittedJobInfo(job, ids, aux={"earlier": earlier}))
            else:
                fresh.append(job)
        for info in self._submit(fresh):
            self._report(info)

    def _report(self, info: SubmittedJobInfo) -> None:
        self.unfinished[info.job] = info
        self.report_job_submission(info)

    # Submission

    def _submit(self, jobs: list[JobExecutorInterface]) -> list[SubmittedJobInfo]:
        """Submit jobs, those with equal parameters as one array; errors are reported."""
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
            for some in (members[i : i + size] for i in range(0, len(members), size)):
                submitted += self._submit_array(some, json.loads(key))
        return submitted

    def _submit_array(
        self, jobs: list[JobExecutorInterface], wanted: dict[str, Any]
    ) -> list[SubmittedJobInfo]:
        settings = self.workflow.executor_settings
        submitter = self._submitter()  # a new one: its parameters would add up
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
        try:
            submitter.update_parameters(
                **wanted,
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
        for job, one in zip(jobs, submitted, strict=True):
            if settings.cluster != "debug":  # its jobs die with this process
                self.records.add(Record(settings.cluster, one.job_id, outputs(job)))
            infos.append(SubmittedJobInfo(job, one.job_id, aux={"job": one}))
        return infos

    def _patiently(self, submitter: AutoExecutor, commands: list[RunCommand]) -> list[Job[Outcome]]:
        """Submit; where no controller can be reached, as while it restarts, again later."""
        for again in range(SUBMISSION_TRIES):
            try:
                return submitter.submit_array(commands)
            except (FailedJobError, FailedSubmissionError) as error:
                # of other errors it is not known that nothing was submitted
                if "Unable to contact slurm controller" not in str(error):
                    raise
                if again + 1 == SUBMISSION_TRIES:
                    raise
                seconds = 5 * 2**again
                self.logger.warning(f"sbatch reaches no controller; again in {seconds} s")
                time.sleep(seconds)
        raise AssertionError

    def _left_behind(self, job: JobExecutorInterface) -> dict[str, Record]:
        """Jobs of a Snakemake that is gone which still make, or may make, this job's outputs."""
        if self.left_behind is None:
            cluster = self.workflow.executor_settings.cluster
            records = [record for record in self.records if record.cluster == cluster]
            states = self.cluster.states([record.id for record in records]) if records else {}
            self.left_behind = {}
            for left in records:
                # where the scheduler does not answer, they may all be alive
                if states is not None and not states.get(left.id, State("UNKNOWN")).active:
                    continue
                self.left_behind |= {output: left for output in left.outputs}
        if not self.left_behind:
            return {}
        earlier = {}
        wanted = outputs(job)
        for output in wanted:
            if record := self.left_behind.get(output):
                earlier[record.id] = record
        stale = [
            id_
            for id_, record in earlier.items()
            if any(wanted.get(o, digest) != digest for o, digest in record.outputs.items())
        ]
        for id_ in stale:
            self.logger.info(f"{id_}, of a Snakemake that is gone, {CANCELLED_BY_US}")
        self.cluster.cancel(stale)
        return earlier

    # Watching

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        if not active_jobs:
            return
        ids = {
            id_ for info in active_jobs for id_ in info.aux.get("earlier", [info.external_jobid])
        }
        async with self.status_rate_limiter:
            states = await asyncio.to_thread(self.cluster.states, ids)
        if states is None:
            self._warn_once("silent", "the scheduler does not answer; its jobs go on")
        else:
            self.warned.discard("silent")
        again = []
        for info in active_jobs:
            if "earlier" in info.aux:
                if self._is_over(info, states):
                    again.append(info)
                else:
                    yield info
            elif not self._is_done(info, states):
                yield info
        for info in self._submit([info.job for info in again if not self._is_made(info)]):
            self.unfinished[info.job] = info
            info.job.register(external_jobid=info.external_jobid)
            yield info

    def _is_done(self, info: SubmittedJobInfo, states: dict[str, State] | None) -> bool:
        """Whether a job has ended; if so, report how."""
        id_, log = info.external_jobid, JobPaths(self.folder, info.external_jobid).stdout
        result = self._result(info)
        if result is not None:
            outcome, value = result
            if outcome == "success" and value.code == 0:
                self.unfinished.pop(info.job, None)
                self._clear(id_)
                self.report_job_success(info)
            elif outcome == "success":
                why = State("OUT_OF_MEMORY") if value.out_of_memory else None
                self._fail(info, f"{id_} {why or f'failed with exit code {value.code}'}", log)
            elif "Job not requeued" in value:
                requeues = self.workflow.executor_settings.requeues
                self._fail(info, f"{id_} was stopped again after {requeues} requeues", log)
            else:
                self._fail(info, f"{id_} could not be run: {value.splitlines()[-1]}", log)
            return True
        if states is None:
            return False
        state = states.get(id_)
        if state is not None and state.active:
            info.aux.pop("ended", None)
            if state.stuck:
                self._warn_once(id_, f"{id_} waits until somebody acts: {state.reason}")
            return False
        # The result may be on its way through the file system; a preempted job may be requeued.
        patience = self.workflow.execution_settings.latency_wait
        if state is None or state.name == "PREEMPTED":
            patience += 30
        if time.monotonic() - info.aux.setdefault("ended", time.monotonic()) < patience:
            return False
        self._fail(info, f"{id_} {state or 'is not known to the scheduler any more'}", log)
        return True

    def _result(self, info: SubmittedJobInfo) -> tuple[str, Any] | None:
        """What a job has left: submitit's ("success", Outcome) or ("error", traceback), or None."""
        if self.workflow.executor_settings.cluster == "debug":
            return "success", info.aux["job"].results()[0]
        path = JobPaths(self.folder, info.external_jobid).result_pickle
        try:
            return pickle_load(path)
        except (OSError, EOFError):
            return None

    def _is_over(self, info: SubmittedJobInfo, states: dict[str, State] | None) -> bool:
        """Whether the earlier jobs that another waits for have all ended."""
        if states is None:
            return False
        over = [id_ for id_ in info.aux["earlier"] if not states.get(id_, State("")).active]
        return len(over) == len(info.aux["earlier"])

    def _is_made(self, info: SubmittedJobInfo) -> bool:
        """Whether the earlier jobs have made what this one is for; if so, report it."""
        earlier: dict[str, Record] = info.aux["earlier"]
        made = {o: digest for record in earlier.values() for o, digest in record.outputs.items()}
        whole = all(
            made.get(output) == digest and os.path.exists(output)
            for output, digest in outputs(info.job).items()
        )
        for id_ in earlier:
            self._clear(id_)
        if whole:
            self.unfinished.pop(info.job, None)
            self.report_job_success(info)
        return whole

    def _fail(self, info: SubmittedJobInfo, message: str, log: Path | None = None) -> None:
        self.unfinished.pop(info.job, None)
        if info.external_jobid is not None:
            self.records.remove(info.external_jobid)
        message = f"{message}; log: {log}" if log else message
        if info.job.is_group():  # Snakemake tells it for single jobs alone
            self.logger.error(message)
        logs = {"aux_logs": [str(log)]} if log else {}
        self.report_job_error(info, msg=f"{message}. ", **logs)

    def _clear(self, id_: str) -> None:
        """Delete what a job that has served left in the folder."""
        self.records.remove(id_)
        for path in self.folder.glob(f"{id_}_*"):
            path.unlink(missing_ok=True)

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self.warned:
            self.warned.add(key)
            self.logger.warning(message)

    # The end

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        # not active_jobs alone: it lacks those whose states are being asked for
        ids = _ids(self.unfinished.values())
        try:
            self.cluster.cancel(ids)
        except (OSError, subprocess.SubprocessError) as error:
            self.logger.error(f"jobs may still run, scancel failed: {error}")
            return
        for id_ in ids:
            self.records.remove(id_)


def _ids(infos: Iterable[SubmittedJobInfo]) -> set[str]:
    """The ids on the cluster of jobs, or of the earlier ones that they wait for."""
    return {id_ for info in infos for id_ in info.aux.get("earlier", [info.external_jobid])}


def _sbatch_line(message: str) -> str:
    """The line of submitit's account of a failed sbatch that says why."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("sbatch: error:")]
    return " ".join(told) or (lines[-1] if lines else "")
