"""Jobs that a Snakemake left behind, for the next to wait for."""

from logging import Logger
from pathlib import Path

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.clusters import Cluster, State
from snakemake_executor_plugin_submitit.digests import Digests, members
from snakemake_executor_plugin_submitit.records import Record
from snakemake_executor_plugin_submitit.watched import Watched

CANCELLED_BY_US = "is cancelled: it runs with other parameters, code, software or inputs"


class LeftBehind:
    """The jobs of a Snakemake that is gone that are alive, or may be, by their outputs."""

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
            # where the scheduler does not answer, they may all be alive
            if states is None or states.get(record.id, State("UNKNOWN")).active:
                self.records |= dict.fromkeys(record.outputs, record)
                self.watched[record.id] = Watched(record.id, folder, alive=states is not None)

    def take(self, job: JobExecutorInterface) -> tuple[list[Watched], bool]:
        """The jobs that make what another is for, and whether that is all that it is for.

        Those that make something else in its place are cancelled. A job is given once for an
        output: when it has failed, its outputs are made anew.
        """
        wanted = [str(output) for member in members(job) for output in member.output]
        found = {o: record for o in wanted if (record := self.records.pop(o, None))}
        earlier = {record.id: record for record in found.values()}
        stale = [id_ for id_, record in earlier.items() if self._is_stale(record, job)]
        for id_ in stale:
            self.watched[id_].stale = True
            self.logger.info(f"{id_}, of a Snakemake that is gone, {CANCELLED_BY_US}")
        self.cluster.cancel(stale)
        return [self.watched[id_] for id_ in earlier], len(found) == len(wanted)

    def _is_stale(self, record: Record, job: JobExecutorInterface) -> bool:
        now = self.digests.of(job, made=record.outputs)
        return any(record.outputs.get(output, digest) != digest for output, digest in now.items())
