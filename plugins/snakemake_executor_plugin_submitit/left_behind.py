"""Jobs of a Snakemake that has died, which the next one adopts."""

import subprocess
from dataclasses import dataclass
from logging import Logger
from pathlib import Path

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.clusters import Cluster, why
from snakemake_executor_plugin_submitit.digests import Digests, members
from snakemake_executor_plugin_submitit.records import Record
from snakemake_executor_plugin_submitit.watched import Watched

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


class LeftBehind:
    """The jobs of dead Snakemakes that may still be alive, by their outputs."""

    def __init__(
        self,
        records: list[Record],
        digests: Digests,
        cluster: Cluster,
        folder: Path,
        logger: Logger,
    ) -> None:
        self.digests = digests
        self.cluster = cluster
        self.logger = logger
        self.records: dict[str, Record] = {}  # by output
        self.watched: dict[str, Watched] = {}  # by id
        states = cluster.states([record.id for record in records]) if records else {}
        for record in records:
            # if the scheduler does not answer, all of them may be alive
            if states is None or (record.id in states and states[record.id].active):
                self.records |= dict.fromkeys(record.outputs, record)
                self.watched[record.id] = Watched(record.id, folder, alive=states is not None)

    def take(self, job: JobExecutorInterface) -> ClusterJobs:
        """The earlier jobs that make a job's outputs, which it need not make again.

        An earlier job whose dependencies have changed is stale, and is cancelled. Each output is
        given once: if the earlier job fails, a new one makes the output.
        """
        outputs = [str(output) for member in members(job) for output in member.output]
        matches = {o: record for o in outputs if (record := self.records.pop(o, None))}
        earlier = {record.id: record for record in matches.values()}
        stale = [id_ for id_, record in earlier.items() if self._is_stale(record, job)]
        for id_ in stale:
            self.watched[id_].stale = True
            self.logger.info(f"{id_}, of a Snakemake that is gone, {CANCELLED_BY_US}")
        try:
            self.cluster.cancel(stale)
        except (OSError, subprocess.SubprocessError) as error:  # then its end is waited for
            self.logger.error(f"{', '.join(stale)}: scancel failed: {why(error)}")
        return ClusterJobs([self.watched[id_] for id_ in earlier], len(matches) == len(outputs))

    def _is_stale(self, record: Record, job: JobExecutorInterface) -> bool:
        now = self.digests.of(job, outputs=record.outputs)
        return any(record.outputs.get(output, digest) != digest for output, digest in now.items())
