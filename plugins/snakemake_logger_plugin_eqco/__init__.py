"""Progress of a grid for ``snakemake --logger eqco``: cells done, time left, images/s.

Snakemake finds this package by its name. The progress replaces Snakemake's block of lines per job.
Everything else is printed as Snakemake formats it: warnings, errors, a dry run. On a terminal the
progress is one live line, elsewhere a line every ten seconds.
"""

import json
import sys
import time
from collections import Counter
from contextlib import suppress
from logging import LogRecord
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

JOB_EVENTS = {
    LogEvent.GROUP_INFO,
    LogEvent.JOB_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.PROGRESS,
    LogEvent.RESOURCES_INFO,
}
CHATTER = "Select jobs to execute..."  # a line per job, without an event
SUMMARY = "pretrain.json"  # holds the number of images that a cell has trained on
SECONDS_BETWEEN_LINES = 10


class LogHandler(LogHandlerBase):
    """A log handler that counts cells from Snakemake's events.

    The rules with the most jobs in this run are those that every cell of the run needs. A cell is
    done when its jobs of all these rules are.
    """

    def __post_init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("cells"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("done,"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("left, {task.fields[rate]:,.0f} images/s"),
            console=self.console,
        )
        self.task = self.progress.add_task("cells", total=None, rate=0)
        self.rule_of: dict[int, str] = {}  # by the job's number
        self.summary_of: dict[int, str] = {}
        self.needed: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.images = self.jobs = 0
        self.printed_end = False
        self.start = self.last_line = time.monotonic()

    def emit(self, record: LogRecord) -> None:
        """Count a job's event; print any other record."""
        event = getattr(record, "event", None)
        if record.getMessage() == CHATTER:
            return
        if self.common_settings.dryrun or event not in JOB_EVENTS:
            self._print(self.format(record))
        if event == LogEvent.RUN_INFO and not self.common_settings.dryrun:
            self._start(record.__dict__["stats"])
        elif event == LogEvent.JOB_INFO:
            self._remember(record.__dict__)
        elif event == LogEvent.PROGRESS:
            self._grow(record.__dict__["total"])
        elif event == LogEvent.JOB_FINISHED:
            self._finish(record.__dict__["job_id"])

    def _start(self, stats: dict[str, int]) -> None:
        rules = {rule: count for rule, count in stats.items() if rule not in ("total", "all")}
        most = max(rules.values(), default=0)
        self.needed = Counter({rule: count for rule, count in rules.items() if count == most})
        self.jobs = stats["total"]
        self.progress.update(self.task, total=most)
        self.start = time.monotonic()
        if self.console.is_terminal and most > 1:
            self.progress.start()

    def _grow(self, jobs: int) -> None:
        """Count the cells that a checkpoint has added: each needs a job of every needed rule."""
        more = (jobs - self.jobs) // max(len(self.needed), 1)
        if more > 0:
            self.jobs, self.printed_end = jobs, False
            self.needed = Counter({rule: count + more for rule, count in self.needed.items()})
            self.progress.update(self.task, total=max(self.needed.values()))

    def _remember(self, job: dict) -> None:
        self.rule_of[job["jobid"]] = job["rule_name"]
        for path in job["output"]:
            if path.endswith(SUMMARY):
                self.summary_of[job["jobid"]] = path

    def _finish(self, job: int) -> None:
        self.finished[self.rule_of.get(job, "")] += 1
        if job in self.summary_of:
            with suppress(OSError, ValueError, KeyError):
                self.images += json.loads(Path(self.summary_of[job]).read_text())["images"]
        done = min((self.finished[rule] for rule in self.needed), default=0)
        rate = self.images / (time.monotonic() - self.start)
        self.progress.update(self.task, completed=done, rate=rate)
        now, total = time.monotonic(), max(self.needed.values(), default=0)
        if self.progress.live.is_started or total < 2:
            return
        if now - self.last_line > SECONDS_BETWEEN_LINES or (done == total and not self.printed_end):
            self.printed_end = done == total
            self.last_line = now
            left = f"{(now - self.start) / done * (total - done):.0f} s left, " if done else ""
            self._print(f"{done} of {total} cells done, {left}{rate:,.0f} images/s")

    def _print(self, text: str) -> None:
        """Print above the live line, or plainly if there is none (much faster)."""
        if self.progress.live.is_started:
            self.console.print(text)
        else:
            print(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the last state of the live line on the terminal."""
        self.progress.stop()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        """True: this handler prints to stderr, in place of Snakemake's own."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """False: Snakemake writes its own log file."""
        return False

    @property
    def has_filter(self) -> bool:
        """False: Snakemake's filter applies, so that ``--quiet`` works."""
        return False

    @property
    def has_formatter(self) -> bool:
        """False: Snakemake's formatter is used."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """False: counts are enough."""
        return False
