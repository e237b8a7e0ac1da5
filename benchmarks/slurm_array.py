"""Seconds of many short jobs through the executor, beside a plain ``sbatch --array``.

A SLURM must be up (make slurm-up) and SLURM_CONF be set. Each job sleeps for a second; all ways use
the same number of slots. Prints one JSON line: wall seconds, and the ratios to the plain array.
"""

import statistics
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
    group: "{group}"
    resources: mem_mb=100, runtime=10
    shell: "sleep 1; touch {{output}}"
"""


def plain(folder: Path, jobs: int, slots: int) -> None:
    """Run the commands by sbatch alone."""
    (folder / "out").mkdir()
    subprocess.run(
        [
            *("sbatch", "--wait", "--mem=100", "-o", "/dev/null"),
            f"--array=0-{jobs - 1}%{slots}",
            *("--wrap", "sleep 1; touch out/$SLURM_ARRAY_TASK_ID"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def snakemake(folder: Path, jobs: int, slots: int, grouped: bool) -> None:
    """Run one array of jobs, or as many groups as slots, each of which runs its jobs in turn."""
    group = "some" if grouped else ""
    text = SNAKEFILE.format(jobs=jobs, group=group)
    (folder / "Snakefile").write_text(text if grouped else text.replace('    group: ""\n', ""))
    per_group = -(-jobs // slots)
    options = ["--group-components", f"some={per_group}", "--cores", "1"] if grouped else []
    subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--executor", "submitit", "--jobs", "1000"),
            *("--max-jobs-per-timespan", "10000/1s", "--seconds-between-status-checks", "1"),
            *("--submitit-array-parallelism", str(slots), "--latency-wait", "3", *options),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def main() -> None:
    parser = arguments(__doc__, n=3)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--slots", type=int, default=16)
    options = parser.parse_args()
    ways = {
        "sbatch": plain,
        "submitit": lambda *a: snakemake(*a, grouped=False),
        "submitit_grouped": lambda *a: snakemake(*a, grouped=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.n):
        for name, run in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                run(Path(folder), options.jobs, options.slots)
                seconds[name].append(time.perf_counter() - start)
                outputs = len(list(Path(folder, "out").iterdir()))
                assert outputs == options.jobs, f"{name}: {outputs} of {options.jobs} files"
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        f"{name}_of_sbatch": round(medians[name] / medians["sbatch"], 3) for name in list(ways)[1:]
    }
    report({"jobs": options.jobs, "slots": options.slots, "unit": "s"}, seconds, **ratios)
