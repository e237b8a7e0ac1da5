"""The executor's own cost for thousands of jobs: calls of SLURM's programs, CPU and memory.

SLURM is a model in this process, since the jobs' own Snakemakes would take hours of CPU.
``sbatch`` notes what it is given, ``squeue`` shows the queue, and each job takes so many seconds on
one of so many slots, writes its output, and ends. Snakemake and the executor are the real ones.
Prints one JSON line: wall and CPU seconds of the main Snakemake.
"""

import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._measure import arguments, report

SNAKEFILE = """
rule all:
    input: expand("out/{{i}}", i=range({jobs}))

rule one:
    output: "out/{{i}}"
    resources: mem_mb=100, runtime=10
    shell: "touch {{output}}"
"""
PROGRAMS = {
    "sbatch": """name=$(sed -n 's/^#SBATCH --job-name=//p' "$2")
id=$(($(wc -l < {folder}/sbatch) + 1))
echo "$id $name" >> {folder}/sbatch; echo $id""",
    "squeue": "echo >> {folder}/squeue; cat {folder}/queue",
    "sacct": "echo accounting storage is disabled >&2; exit 1",
    "scontrol": "echo ClusterName = model; echo MaxArraySize = 1001; echo MinJobAge = 300 sec",
    "scancel": "exit 1",
    "srun": "exit 1",
}


class Model:
    """SLURM's queue: jobs in the order of their submission on equal slots."""

    def __init__(self, folder: Path, slots: int, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.free = [0.0] * slots  # when each slot is free
        self.seen = 0  # arrays
        self.left: dict[str, tuple[float, float, str]] = {}  # begin, end and output of jobs

    def tick(self) -> None:
        now = time.monotonic()
        lines = (self.folder / "sbatch").read_text().splitlines()
        for line in lines[self.seen :]:
            array, name = line.split()
            run = self.folder / ".snakemake/submitit" / name.rsplit("-", 1)[1]
            try:
                record = json.loads((run / f"{array}.json").read_text())
            except OSError:
                break  # sbatch has just answered
            for id_, (output,) in record["outputs"].items():
                begin = max(now, heapq.heappop(self.free))
                heapq.heappush(self.free, begin + self.seconds)
                self.left[id_] = (begin, begin + self.seconds, f"{run}/{id_} {output}")
            self.seen += 1
        for id_ in [id_ for id_, (_, end, _) in self.left.items() if end <= now]:
            _, _, place = self.left.pop(id_)
            start, output = place.split()
            (self.folder / output).touch()
            Path(f"{start}_outcome.json").write_text('{"code": 0, "out_of_memory": false}')
        states = (
            f"{id_}|{'RUNNING' if begin <= now else 'PENDING'}|None|n1\n"
            for id_, (begin, _, _) in self.left.items()
        )
        temporary = self.folder / "queue.tmp"
        temporary.write_text("".join(states))
        temporary.replace(self.folder / "queue")


def run(jobs: int, limit: int, queued: int, slots: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bin_ = folder / "bin"
        for path in (bin_, folder / "out"):
            path.mkdir()
        for program, text in PROGRAMS.items():
            (bin_ / program).write_text(f"#!/bin/sh\n{text.format(folder=folder)}\n")
            (bin_ / program).chmod(0o755)
        for file in ("sbatch", "squeue", "queue"):
            (folder / file).touch()
        (folder / "Snakefile").write_text(SNAKEFILE.format(jobs=jobs))
        command = [
            *(sys.executable, "-m", "snakemake", "--executor", "submitit", "--quiet", "all"),
            *("--jobs", str(limit), "--submitit-max-jobs", str(queued)),
            *("--max-jobs-per-timespan", "10000/1s"),
        ]
        start = time.perf_counter()
        with (folder / "log").open("w") as log:
            path = f"{bin_}:{os.environ['PATH']}"
            process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, "PATH": path}, stdout=log, stderr=log
            )
        model, files = Model(folder, slots, seconds), 0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            model.tick()
            listed = os.walk(folder / ".snakemake/submitit")
            files = max(files, sum(len(names) for _, _, names in listed))
            time.sleep(0.5)
        wall = time.perf_counter() - start
        _, status, usage = ended
        assert status == 0, (folder / "log").read_text()[-2000:]
        assert len(list((folder / "out").iterdir())) == jobs
        cpu = usage.ru_utime + usage.ru_stime
        return {
            "wall": wall,
            "cpu": cpu,
            "sbatch": len((folder / "sbatch").read_text().splitlines()),
            "squeue": len((folder / "squeue").read_text().splitlines()),
            "peak_mib": usage.ru_maxrss / 1024,
            "files_at_most": files,
            "files_left": len(list((folder / ".snakemake/submitit").rglob("*"))),
        }


def main() -> None:
    parser = arguments(__doc__, n=1)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs (10,000)")
    parser.add_argument("--limit", type=int, default=10_000, help="Snakemake's --jobs (10,000)")
    parser.add_argument("--queued", type=int, default=1000, help="the executor's limit (1,000)")
    parser.add_argument("--slots", type=int, default=256, help="jobs that run at once (256)")
    parser.add_argument("--seconds", type=float, default=1, help="of each job (1)")
    options = parser.parse_args()
    runs = [
        run(options.jobs, options.limit, options.queued, options.slots, options.seconds)
        for _ in range(options.n)
    ]
    times = {name: [one[name] for one in runs] for name in ("wall", "cpu")}
    last = {name: round(value) for name, value in runs[-1].items() if name not in times}
    share = [round(one["cpu"] / one["wall"], 3) for one in runs]
    given = {name: getattr(options, name) for name in ("jobs", "limit", "queued")}
    report({**given, "unit": "s"}, times, share=share, **last)
