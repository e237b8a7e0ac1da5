"""The tests that need a GPU, in several processes.

Prints one JSON line, how many passed, failed and were skipped, and the seconds; on stderr all that
pytest printed.
"""

import os
import re
import subprocess
import sys
import time

from benchmarks._measure import ROOT, report

PROCESSES = "6"


def main() -> None:
    files = sorted(ROOT.glob("tests/**/test_*.py"))
    marked = [str(path) for path in files if "mark.gpu" in path.read_text()]
    options = ["-m", "gpu", "--numprocesses", PROCESSES, "--durations=5"]
    command = [sys.executable, "-m", "pytest", *options, *marked]
    # their commands run in other folders, and eqco need not be installed
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    print(done.stdout, file=sys.stderr)
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for n, name in re.findall(r"(\d+) (passed|failed|skipped)", done.stdout):
        counts[name] = int(n)
    report({**counts, "unit": "s"}, {"tests": [seconds]})
    sys.exit(done.returncode or not counts["passed"])
