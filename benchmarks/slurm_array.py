"""200 one-second jobs through the executor, beside a plain `sbatch --array` of the same commands.

A SLURM must be up (make slurm-up) and SLURM_CONF be set. Prints the wall times of each repetition
and the medians' ratios to the plain array. Both use the same number of slots.

    python benchmarks/slurm_array.py --jobs 200 --slots 16 --repeat 3
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    """The same commands by sbatch alone."""
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
    """One array of `jobs`, or as many groups as slots, each of which runs its jobs in turn."""
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    ways = {
        "sbatch --array": plain,
        "submitit": lambda *a: snakemake(*a, grouped=False),
        "submitit, grouped": lambda *a: snakemake(*a, grouped=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeat):
        for name, run in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                run(Path(folder), arguments.jobs, arguments.slots)
                seconds[name].append(time.perf_counter() - start)
                made = len(list(Path(folder, "out").iterdir()))
                assert made == arguments.jobs, f"{name}: {made} of {arguments.jobs} files"
                scripts = list(Path(folder).glob(".snakemake/submitit/*_submission.sh"))
            calls = f", {len(scripts)} sbatch" if scripts else ""
            print(f"{name}: {seconds[name][-1]:.1f} s{calls}", flush=True)
    base = statistics.median(seconds["sbatch --array"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name}: median {median:.1f} s, {median / base:.2f} of the plain array's")


if __name__ == "__main__":
    main()
