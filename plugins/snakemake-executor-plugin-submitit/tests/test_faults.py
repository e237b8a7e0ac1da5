"""Faults that one job, or one round of questions, has to bear, not the grid."""

import os
import re

import pytest
from made import (
    CONFIG,
    RUNNING,
    SBATCH,
    TOY,
    UNREACHED,
    Made,
    interrupt,
    programs,
)
from project import Project


def test_a_result_that_cannot_be_read_fails_its_job_alone(tmp_path):
    """A crash of the file server: of the result's bytes nothing but zeros arrived."""
    project = Project(tmp_path)
    project.write(
        """
        rule all:
            input: expand("out/{i}", i=range(2))

        rule toy:
            output: "out/{i}"
            shell:
                "test {wildcards.i} = 1 || head -c 64 /dev/zero"
                " > $SUBMITIT_FOLDER/${{SUBMITIT_LOCAL_JOB_ID}}_outcome.json;"
                "while ! test -e go; do sleep 0.1; done; touch {output}"
        """
    )
    try:
        process = project.start("--submitit-cluster", "local", "--keep-going")
        told = r"left a result that cannot be read: JSONDecodeError: .*; log: .*_0_log.out"
        project.wait_for(told, "log.txt")
        (tmp_path / "go").touch()
        assert process.wait(timeout=180) == 1
        assert "Finished jobid" in project.log
        assert (tmp_path / "out/1").exists()
    finally:
        project.end()


def test_a_scancel_that_fails_leaves_the_records(tmp_path):
    """And what was submitted asks for requeues, and gives its step its CPUs."""
    made = Made(tmp_path, scancel=UNREACHED)
    made.write("queue", RUNNING)
    try:
        process = made.project.start("--cores", "3")
        made.wait(made.project.submitted, "a record")
        interrupt(process)
    finally:
        made.project.end()
    log = made.project.log
    assert "scancel failed: slurm_load_jobs error: Unable to contact slurm controller" in log
    assert set(made.project.submitted().values()) == {"7_0", "7_1", "7_2"}
    script = made.project.read("submitted")
    assert "#SBATCH --requeue\n" in script
    assert "#SBATCH --wckey=''\n" in script  # submitit's own is none of the site's
    step = r"^srun .*--cpus-per-task=3 sh \S+/start.sh 100 \S+ -u -m submitit.core._submit "
    assert re.search(step, script, re.M)


def test_jobs_are_asked_for_and_cancelled_by_names_of_this_run_alone(made):
    made.write("queue", RUNNING)
    process = made.project.start()
    made.wait(lambda: made.project.read("asked").count("\n") >= 2, "questions")
    interrupt(process)
    name = made.project.read("name").strip()
    (folder,) = (made.project.folder / ".snakemake/submitit").iterdir()
    assert name == f"toy-{folder.name}"
    assert folder.stat().st_mode & 0o077 == 0
    asked = made.project.read("asked").splitlines()
    assert {line.split("--name ")[1] for line in asked} == {name}
    assert made.project.read("cancelled").split() == ["--quiet", "--name", name, "7"]
    assert made.project.submitted() == {}


def test_jobs_of_another_cluster_are_neither_read_nor_cancelled_nor_doubled(made):
    made.leave_behind()
    programs(made.project.folder / "bin", scontrol=CONFIG.replace("far", "near"))
    assert made.project.run("--keep-going") == 1
    told = r"out/\d: may still be made by job 7_\d of far: wait for it there, or delete /"
    assert len(re.findall(told, made.project.log)) == 3
    assert made.project.read("ids") == "7\n"
    assert made.project.read("cancelled") == ""


def test_jobs_whose_snakemake_died_before_it_wrote_them_down_are_cancelled(made):
    made.leave_behind()
    (record,) = made.project.folder.glob(".snakemake/submitit/*/7.json")
    record.unlink()
    process = made.project.start()
    made.project.wait_for("7, of a Snakemake that is gone, is cancelled", "log.txt")
    made.wait(lambda: made.project.read("ids") == "7\n8\n", "the jobs again")
    assert made.project.read("cancelled").split()[3:] == ["7"]
    interrupt(process)


def test_an_outcome_of_an_earlier_run_by_the_same_number_is_not_believed(made):
    """A new cluster begins with job 1 again."""
    made.leave_behind()
    (folder,) = (made.project.folder / ".snakemake/submitit").iterdir()
    for i in range(3):
        (folder / f"7_{i}_outcome.json").write_text('{"code": 1, "out_of_memory": false}')
    made.write("last", "6")
    made.write("queue", "")  # they have ended, and are forgotten
    process = made.project.start()
    made.wait(lambda: made.project.read("ids") == "7\n7\n", "the jobs again")
    made.write("queue", RUNNING)
    made.project.wait_for("toy-", "asked")
    assert "failed" not in made.project.log
    interrupt(process)


def test_what_a_site_prints_around_an_id_is_not_taken_for_it(made):
    """And while it prints no id, jobs are found by name, cancelled, and submitted again."""
    site = """test ! -e silent || { cat "$2" >> /dev/null; echo 6 >> ids; echo 6 > last
sed -n 's/^#SBATCH --job-name=//p' "$2" > name; echo 'Thank you.'; exit 0; }
echo 'Your last job 3 has used 4 hours.'
"""
    programs(made.project.folder / "bin", sbatch=f"{site}{SBATCH};far; echo Bye")
    made.write("silent", "")
    made.write("queue", RUNNING)
    process = made.project.start()
    made.project.wait_for("sbatch has told no id: Thank you.; again in 5 s", "log.txt")
    (made.project.folder / "silent").unlink()
    made.wait(made.project.submitted, "a record")
    assert made.project.read("cancelled").split()[3:] == ["6"]
    assert set(made.project.submitted().values()) == {"7_0", "7_1", "7_2"}
    interrupt(process)


@pytest.mark.parametrize("arrived", [False, True], ids=["not arrived", "arrived"])
def test_an_sbatch_without_an_answer_is_tried_again_and_doubles_nothing(made, arrived):
    made.write(
        "refuse", "sbatch: error: Batch job submission failed: Socket timed out on send/recv"
    )
    if arrived:
        made.write("accept", "")
    process = made.project.start()
    told = "Socket timed out on send/recv; again in 5 s"
    made.project.wait_for(told, "log.txt")
    made.write("queue", RUNNING)
    (made.project.folder / "refuse").unlink()
    made.wait(made.project.submitted, "a record")
    first = made.project.read("ids").split()[0]
    cancelled = made.project.read("cancelled").split()
    assert cancelled[3:] == ([first] if arrived else [])
    assert set(made.project.submitted().values()) == {f"{7 + arrived}_{i}" for i in range(3)}
    left = (made.project.folder / ".snakemake/submitit").rglob("*.pkl")
    assert {path.name for path in left} == {f"{7 + arrived}_{i}_submitted.pkl" for i in range(3)}
    interrupt(process)


def test_at_a_limit_arrays_are_halved_and_wait(made):
    """A limit of one job: the three are submitted one by one, as others end."""
    limited = """n=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$2")
test ! "$n" || { echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; }
"""
    programs(made.project.folder / "bin", sbatch=limited + SBATCH)
    made.write(
        "queue",
        'for i in $(cat ids); do echo "$i|COMPLETED|None|n1"; done; touch out/0 out/1 out/2',
    )
    (made.project.folder / "out").mkdir()
    assert made.project.run() == 0, made.project.log
    assert made.project.read("ids") == "7\n8\n9\n"
    assert "QOSMaxSubmitJobPerUserLimit: jobs wait for others to end" in made.project.log


def test_no_more_are_queued_than_asked_for_and_the_highest_priority_comes_first(made):
    made.project.write(
        """
        rule all:
            input: expand("out/{i}", i=range(4))

        rule low:
            output: "out/{i,[01]}"
            shell: "touch {output}"

        rule high:
            output: "out/{i,[23]}"
            priority: 1
            shell: "touch {output}"
        """
    )
    (made.project.folder / "out").mkdir()
    process = made.project.start("--jobs", "unlimited", "--submitit-max-jobs", "2")
    made.wait(made.project.submitted, "a record")
    assert set(made.project.submitted()) == {"out/2", "out/3"}
    ended = (
        'touch out/0 out/1 out/2 out/3; for i in 0 1; do echo "$(cat last)_$i|COMPLETED||n1"; done'
    )
    made.write("queue", ended)
    assert process.wait(timeout=60) == 0
    assert made.project.read("ids") == "7\n8\n"
    assert re.findall("--job-name=(low|high)", made.project.read("submitted")) == ["high", "low"]


def test_exit_code_0_is_success_although_the_network_hides_the_outcome(made):
    made.write("queue", RUNNING.replace("RUNNING", "COMPLETED") + "touch out/0 out/1 out/2\n")
    (made.project.folder / "out").mkdir()
    assert made.project.run() == 0, made.project.log
    assert made.project.submitted() == {}


def test_with_detach_an_interrupt_leaves_the_jobs_to_the_next(made):
    process = made.start("--submitit-detach")
    interrupt(process)
    assert "3 jobs go on; start Snakemake again to adopt them" in made.project.log
    process = made.project.start()
    made.project.wait_for("waits for 7_2, of a Snakemake that is gone", "log.txt")
    assert made.project.read("ids") == "7\n"
    interrupt(process)
    assert made.project.read("cancelled").split()[3:] == ["7_0", "7_1", "7_2"]


def test_an_enclosing_job_is_not_passed_on(made):
    made.project.environment |= {"SLURM_ARRAY_JOB_ID": "3", "SLURM_CONF": "/etc/slurm.conf"}
    programs(made.project.folder / "bin", sbatch="env > environment\n" + SBATCH)
    process = made.start()
    environment = made.project.read("environment")
    assert "SLURM_ARRAY_JOB_ID" not in environment
    assert "SLURM_CONF=/etc/slurm.conf" in environment
    interrupt(process)


def test_secrets_are_in_no_command(made):
    made.project.environment["TOKEN"] = "secret-7"
    made.project.write('envvars: "TOKEN"\n' + TOY.replace("\n    ", "\n"))
    process = made.start()
    files = (path for path in made.project.folder.rglob("*") if path.is_file())
    assert [path.name for path in files if b"secret-7" in path.read_bytes()] == []
    interrupt(process)


def test_logs_of_earlier_runs_go_after_some_days(made):
    made.write("queue", RUNNING.replace("RUNNING", "FAILED"))
    assert made.project.run("--latency-wait", "0") == 1
    (first,) = (made.project.folder / ".snakemake/submitit").iterdir()
    assert made.project.run("--latency-wait", "0") == 1
    assert first.exists()
    os.utime(first, (0, 0))
    assert made.project.run("--latency-wait", "0") == 1
    assert not first.exists()


def test_jobs_whose_record_cannot_be_written_are_cancelled_and_told(made):
    """A full disk: a Snakemake after this one would not know of them."""
    blocked = """mkdir -p "$(dirname $(ls -d .snakemake/submitit/*/run.json))/7.json"\n"""
    programs(made.project.folder / "bin", sbatch=blocked + SBATCH)
    assert made.project.run("--keep-going") == 1
    assert "was not submitted: its record cannot be written: Is a directory" in made.project.log
    assert made.project.read("cancelled").split()[3:] == ["7"]


def test_a_job_that_has_told_its_end_is_not_cancelled(made):
    process = made.start("--keep-going")
    (folder,) = (
        path for path in made.project.folder.glob(".snakemake/submitit/*") if path.is_dir()
    )
    for i in range(3):
        (folder / f"7_{i}_outcome.json").write_text('{"code": 3}')
    assert process.wait(timeout=60) == 1
    assert made.project.log.count("failed with exit code 3") == 3
    assert made.project.read("cancelled") == ""
