"""A grid whose jobs run in the Containerfile's image: `snakemake --sdm apptainer`."""

import json
import re
import shutil

import pytest
import yaml
from helpers import ROOT, cold, output_of
from tiny_grid import CELLS, COLD, ran, run, tables

IMAGE = ROOT / "eqco.sif"  # of docs/cluster.md
FILE = (ROOT / "Containerfile").read_text()


def test_the_image_is_of_the_system_that_is_tested_and_by_make():
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = ci["jobs"].values()
    assert re.findall(r"^FROM (\S+) AS base$", FILE, re.M) == [f"{job['container']}-slim"]
    assert set(re.findall(r"^FROM (\S+)", FILE, re.M)[1:]) == {"base"}
    (target,) = re.findall(r"^RUN make (\S+)", FILE, re.M)
    assert f"\n{target}:" in (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("apptainer") and IMAGE.exists()), reason="needs Apptainer and eqco.sif"
)
def test_jobs_in_the_image_make_the_same_table(grid):
    before = tables(grid)
    shutil.rmtree(grid / "results")
    (grid / "eqco.sif").symlink_to(IMAGE)
    # none of the tests' variables: the package of the image, not the copy's
    in_image = ("--sdm", "apptainer", "--apptainer-args=--cleanenv")
    assert ran(run(grid, [*COLD, *in_image], cold(grid)))["pretrain"] == CELLS
    program = "import eqco.store.provenance as p; print(p.revision())"
    apptainer = ("apptainer", "exec", "--cleanenv", IMAGE)
    revision = output_of([*apptainer, "python", "-c", program], cwd=grid / "results")
    for path in grid.glob("results/tiny/cells/*/*/*/*/pretrain.json"):
        assert json.loads(path.read_text())["provenance"]["revision"] == revision.strip() != ""
    assert tables(grid) == before
