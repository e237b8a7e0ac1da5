"""Jobs of a Snakemake that has died, which the next one adopts."""

import subprocess
from dataclasses import dataclass
from logging import Logger

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.clusters import Cluster, Local, cancel_others, why
from snakemake_executor_plugin_submitit.digests import Digests, members
from snakemake_executor_plugin_submitit.runs import Run
from snakemake_executor_plugin_submitit.watched import Watched, by_name

CANCELLED_BY_US = "is cancelled: it runs with other parameters, code, software or inputs"


@dataclass(frozen=True)
class ClusterJobs:
    """The jobs on the cluster that make a Snakemake job's outputs.

    Attributes:
        watched: the jobs: the Snakemake job's own, or earlier ones.
        complete: whether they make all of its outputs.
    """

    watched: list[Watched]
    complete: bool


@dataclass(frozen=True)
class Earlier:
    """A job of an earlier run: its outputs with their digests, and where it is."""

    run: Run
    watched: Watched
    outputs: dict[str, str]


class LeftBehind:
    """The jobs of dead Snakemakes that may still be alive, by their outputs.

    Args:
        runs: the earlier runs, the latest last.
        digests: of the jobs of this one.
        cluster: of this run.
        kind: of the cluster: slurm or local.
        logger: for what is waited for and cancelled.

    Raises:
        OSError, SubprocessError: the scheduler does not answer.
    """

    def __init__(
        self, runs: list[Run], digests: Digests, cluster: Cluster, kind: str, logger: Logger
    ) -> None:
        self.digests = digests
        self.clusters: dict[tuple[str, str], Cluster] = {("local", Local.where): Local()}
        self.clusters[kind, cluster.where] = cluster
        self.logger = logger
        self.stale: list[Earlier] = []  # to be cancelled
        self.earlier: dict[str, Earlier] = {}  # by output
        for run in runs:
            self._read(run)

    def _read(self, run: Run) -> None:
        """Find the jobs of a run that are alive, and forget the others."""
        cluster = self.clusters.get((run.cluster, run.where))
        for name in run.names:
            # its Snakemake died before it could write down what they make
            if cluster and (lost := cancel_others(cluster, name, run.unfinished.keys())):
                self.logger.info(f"{', '.join(lost)}, of a Snakemake that is gone, is cancelled")
        ids = {id_ for jobs in run.unfinished.values() for id_ in jobs}
        states = cluster.states(ids, run.names, run.started) if cluster and ids else {}
        for record in list(run.records().values()):
            for id_, outputs in record.outputs.items():
                state = states.get(id_) if states else None
                # if the scheduler does not answer, or is another, all of them may be alive
                if cluster and states is not None and not (state and state.active):
                    run.end(id_)
                    continue
                watched = Watched(id_, record.name, run.folder, adopted=True, alive=bool(state))
                self.earlier |= dict.fromkeys(outputs, Earlier(run, watched, outputs))

    def take(self, job: JobExecutorInterface) -> ClusterJobs:
        """The earlier jobs that make a job's outputs, which it need not make again.

        An earlier job whose dependencies have changed is stale, and is cancelled. Each output is
        given once: if the earlier job fails, a new one makes the output.

        Raises:
            WorkflowError: another cluster may be making an output.
        """
        if not self.earlier:
            return ClusterJobs([], complete=False)
        outputs = [str(output) for member in members(job) for output in member.output]
        matches = {o: self.earlier[o] for o in outputs if o in self.earlier}
        for output, one in matches.items():
            if (one.run.cluster, one.run.where) not in self.clusters:
                raise WorkflowError(
                    f"{output}: may still be made by job {one.watched.id} of {one.run.where}: "
                    f"wait for it there, or delete {one.run.folder}"
                )
        for output in matches:
            del self.earlier[output]
        jobs = list({id(one): one for one in matches.values()}.values())
        for one in jobs:
            if self._is_stale(one, job):
                one.watched.stale = True
                self.stale.append(one)
                self.logger.info(
                    f"{one.watched.id}, of a Snakemake that is gone, {CANCELLED_BY_US}"
                )
        return ClusterJobs([one.watched for one in jobs], len(matches) == len(outputs))

    def cancel_stale(self) -> None:
        """Cancel the stale jobs that were taken, all of a name by one call."""
        clusters = {
            one.watched.name: self.clusters[one.run.cluster, one.run.where] for one in self.stale
        }
        stale = by_name(one.watched for one in self.stale)
        self.stale = []
        for name, some in stale.items():
            cluster, ids = clusters[name], [one.id for one in some]
            try:
                cluster.cancel(ids, name)
            except (OSError, subprocess.SubprocessError) as error:  # then their end is waited for
                self.logger.error(f"{', '.join(ids)}: scancel failed: {why(error)}")

    def _is_stale(self, earlier: Earlier, job: JobExecutorInterface) -> bool:
        now = self.digests.of(job, outputs=earlier.outputs)
        return any(earlier.outputs.get(output, digest) != digest for output, digest in now.items())
