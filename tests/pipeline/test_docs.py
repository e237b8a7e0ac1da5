"""What the pages show is so: commands run and print that, code runs, links and messages exist.

The ``sh`` blocks of a page are one shell session, in a copy of the project that all pages share.
Every line runs as it stands, but for those that INSTEAD lists with the reason; studies are SMALLER.
"""

import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pdoc.doc
import pdoc.extract
import pytest
import torch
import typer
import yaml
from dvc.cli.parser import get_main_parser
from helpers import EXECUTOR, PACKAGES, ROOT, TINY, idx, output_of, random_encoder, with_values
from snakemake.cli import get_argument_parser

import eqco
from eqco.commands.cli import app
from eqco.commands.export import export
from eqco.data.sources import FASHION_MNIST_FILES
from eqco.errors import InputError
from eqco.runtime.lock import hold
from eqco.study.load import load_study, parse_study

pytestmark = pytest.mark.usefixtures("fork_server")

PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "tutorial.md",
    *sorted(set(ROOT.glob("docs/*.md")) - {ROOT / "docs" / "tutorial.md"}),
    *sorted(ROOT.glob("docs/findings/*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / EXECUTOR / "README.md",
    *sorted(ROOT.glob(f"{EXECUTOR}/docs/*.md")),
    ROOT / "params" / "README.md",
    ROOT / "published" / "README.md",
    ROOT / "results" / "README.md",
]
# In the copy's study files, and where a page writes one: other numbers, so that it takes seconds.
SMALLER = {
    r"epochs: (20|10)\b": "epochs: 1",
    r"seeds: \[0, 1, 2(, 3, 4)?\]": "seeds: [0, 1]",
    r"seeds: \[0, 1, 2, 3\]": "seeds: [0, 1, 2]",
    r"negatives: \[1, (4, 16, 64, )?255\]": "negatives: [1]",
    r"^(?:comparisons|claims):\n(?:  .*\n)+": "",  # with K that are left out
    r"^evaluate:\n(?:  .*\n)+": "",  # in its place:
    r"^alpha: 256$": "alpha: 256\n"
    "evaluate: {linear: {epochs: 2, drops: [1]}, linear_lbfgs: {iterations: 5}, knn: {k: 5}}",
    # noise in the place of Fashion-MNIST
    r"train_images: 10000$": "train_images: 300\n  root: ../fashion-mnist",
}
# What does not run as it stands: what runs in its place, and why.
INSTEAD = {
    r"^(\. \.venv/bin/activate)$": (
        r'\1; PATH="$PROGRAMS:$PATH"',
        "Snakemake and DVC as forks, which take seconds less; test_workflow: they are the same",
    ),
    r"^make (test|lint|bench)\b": (r"make -n \1", "minutes, and this is one of the tests"),
    r"^make (docs)\b": (r"make -n \1", "half a minute; test_site makes the site"),
    r"^make (slurm-\w+)": (r"make -n \1", "tests of SLURM start and stop one"),
    r"--profile slurm (?=--configfile)": (
        "--profile slurm --submitit-cluster local --jobs 2 ",
        "processes in the place of jobs; tests/slurm has a SLURM",
    ),
    r"^rm (results/fashion-mnist/cells.jsonl)": (
        r"ls \1",
        "other pages need it, and nothing of it stands in for cells of a smaller study",
    ),
    r"^dvc repro$": (
        "dvc repro --dry",
        "the archived cells are of the studies as they are; test_dvc makes tables of such",
    ),
    r"^study=negatives data=data/cifar10$": (
        "study=demo data=data/digits; rm -rf results/demo/cells/*/*/margin~0/seed~0",
        "200 epochs of a ResNet-18; a cell of the demo, which README ran",
    ),
    r"--submitit-cluster local\b": (
        "--submitit-cluster local --seconds-between-status-checks 1",
        "10 in the profile",
    ),
}


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and text."""
    return re.findall(r"^```(.*?)\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(page: Path) -> str:
    return "".join(text for language, text in blocks(page) if language == "sh")


PAGES_OF_COMMANDS = [page for page in PAGES if commands(page)]
each_page = partial(pytest.mark.parametrize, "page", ids=lambda page: str(page.relative_to(ROOT)))


def smaller(text: str) -> str:
    for pattern, shorter in SMALLER.items():
        text = re.sub(pattern, shorter, text, flags=re.M)
    return text


@pytest.fixture(scope="module")
def project(tmp_path_factory, programs) -> Path:
    """A clone with its environment, studies that take seconds, and noise for Fashion-MNIST."""
    folder = tmp_path_factory.mktemp("docs") / "eqco"
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")[:-1]:
        if os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    for study in folder.glob("params/*.yaml"):
        study.write_text(smaller(study.read_text()))
    venv = folder / ".venv"
    venv.mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith("installed"):
            (venv / part.name).symlink_to(part)
    for name in ("installed", *(part.name for part in Path(sys.prefix).glob("installed-*"))):
        (venv / name).touch()  # newer than what it is made from; a missing group gets installed
    noise = np.random.default_rng(0)
    (folder.parent / "fashion-mnist").mkdir()
    for name in FASHION_MNIST_FILES:
        count = 300 if name.startswith("train") else 100
        images = noise.integers(0, 256, (count, 28, 28))
        with gzip.open(folder.parent / "fashion-mnist" / name, "wb") as file:
            file.write(idx(images if "images" in name else np.arange(count) % 10))
    environment = environment_of(folder, programs)
    for command in ("git init -q -b main", "git add -A", "git commit -qm copy"):
        subprocess.run(shlex.split(command), cwd=folder, env=environment, check=True)
    return folder


def environment_of(folder: Path, programs: Path) -> dict[str, str]:
    person = {"NAME": "a", "EMAIL": "a@b"}
    return {
        **os.environ,
        **{f"GIT_{who}_{k}": v for who in ("AUTHOR", "COMMITTER") for k, v in person.items()},
        "PYTHONPATH": str(folder),
        "EDITOR": "true",
        "PROGRAMS": str(programs),
    }


@each_page(PAGES_OF_COMMANDS)
def test_commands_run_and_print_what_the_page_says(page, project, programs):
    script = "".join(f"{BETWEEN}\n{text}" for language, text in blocks(page) if language == "sh")
    script = smaller(script)
    for pattern, (other, _) in INSTEAD.items():
        script = re.sub(pattern, other, script, flags=re.M)
    printed_by_all = output_of(
        ["bash", "-ec", script],
        cwd=project,
        env=environment_of(project, programs),
        stdin=subprocess.DEVNULL,
    )
    outputs = iter(printed_by_all.split("<block>\n")[1:])
    for language, text in blocks(page):
        if language == "sh":
            printed = next(outputs)
        elif language == "text":
            rest = iter([shape(line) for line in printed.splitlines()])
            for line in text.splitlines():
                assert shape(line) in rest, f"not there, or not in this order: {line}\n{printed}"


BETWEEN = "echo '<block>'"


def shape(line: str) -> str:
    """A line without what differs from run to run: its numbers, how many, widths, equal cells."""
    line = re.sub(r"\d[\d.,:e+-]*", "0", line)
    line = re.sub(r"0( 0)+", "0", re.sub(r"\s+", " ", line))
    return re.sub(r"(\| [^|]+)\1+", r"\1", line).strip()


def test_every_exception_is_one_that_a_page_needs():
    script = "".join(map(commands, PAGES))
    for pattern in (*SMALLER, *INSTEAD):
        assert re.search(pattern, script + "".join(map(Path.read_text, STUDIES)), re.M), pattern


STUDIES = [ROOT / "params" / "demo.yaml", ROOT / "params" / "fashion-mnist.yaml"]


@each_page(PAGES)
def test_no_block_goes_untested(page):
    for language, text in blocks(page):
        assert language in ("sh", "text", "python", "yaml"), text


@each_page(PAGES)
def test_yaml_blocks_are_a_dataset_or_keys_of_a_grid_block(page):
    values = yaml.safe_load(TINY.read_text())
    block = {"methods": ["simo"], "negatives": [4], "margins": [0], "seeds": [0]}
    for language, text in blocks(page):
        if language == "yaml":
            keys = yaml.safe_load(text)
            grid = [{**block, "losses": ["dual-temperature"], **keys}]
            parse_study({**values, **(keys if "data" in keys else {"grid": grid})}, page.name)


@each_page(PAGES)
def test_python_blocks_run(page, study_with, tmp_path, monkeypatch):
    if page.name == "encoders.md":
        export_all(study_with, tmp_path)
        monkeypatch.chdir(tmp_path)
    names = {"positive": torch.rand(4), "negatives": torch.rand(4, 16)}
    for language, text in blocks(page):
        if language == "python" and page.name != "adding-a-method.md":  # has a test of its own
            exec(text, names)


def export_all(study_with: Callable, folder: Path) -> None:
    """The files that docs/encoders.md loads."""
    photos = {"kind": "image-folder", "name": "photos", "path": "photos", "size": 32}
    encoder = folder / "encoder.safetensors"
    random_encoder(encoder, study_with({"data": photos, "network.backbone": "resnet18"}))
    for to, ending in (("torchvision", "safetensors"), ("onnx", "onnx"), ("pt2", "pt2")):
        export(encoder, to, folder / f"resnet18.{ending}", card=False)


@each_page(PAGES)
def test_commands_in_the_text_exist(page):
    """Targets of make, commands and options of eqco, options of snakemake, all that dvc parses."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    makefile = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    for command in re.findall(r"`([^`]+)`", text):
        words = [word for word in command.split() if "=" not in word or word.startswith("-")]
        options = {word.split("=")[0] for word in words if word.startswith("-")}
        match words:
            case ["make", target]:
                assert f"\n{target}:" in makefile, command
            case ["python", "-m", "eqco", name, *_] | ["eqco", name, *_]:
                known = [option for param in EQCO[name].params for option in param.opts]
                assert options - {"-m"} <= {*known, "--help"}, command
            case ["snakemake", *_]:
                assert options <= set(get_argument_parser()._option_string_actions), command
            case ["dvc", *arguments]:
                get_main_parser().parse_args(arguments)


MAIN = typer.main.get_command(app)
EQCO = {
    "--help": MAIN,
    **{option: MAIN for param in MAIN.params for option in param.opts},
    **MAIN.commands,
}


def messages(page: Path) -> list[str]:
    """What stands alone in the first column of a page's tables and is no word and no command."""
    rows = re.findall(r"^\| (?:`([^`]+)`|``(.+?)``) \|", page.read_text(), re.M)
    quoted = [one or other for one, other in rows]
    commands = ("snakemake -", "dvc ", "git ")
    return [text for text in quoted if " " in text and not text.startswith(commands)]


@pytest.fixture(scope="module")
def printed(tiny_values, tmp_path_factory) -> str:
    """What the code can print: the source, each text in one line, and what mistakes make of it."""
    sources = [
        path.read_text()
        for folder in (*PACKAGES, "workflow", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".smk", ".sh")
    ]
    joined = [re.sub(r'"\s*\n\s*f?"', "", source) for source in sources]
    folder = tmp_path_factory.mktemp("mistakes")
    with hold(folder / "lock", wait=False):
        made = [
            partial(hold(folder / "lock", wait=False).__enter__),
            partial(load_study, folder / "none.yaml"),
            *(
                partial(parse_study, with_values(tiny_values, changes), "tiny.yaml")
                for changes in (
                    {"grid.0.negative": [1]},
                    {"grid.0.seeds": [0, 0]},
                    {"grid.0.negatives": [1, 300]},
                    {"pretrain.batch": 2000},
                    {"grid.0.losses": ["dclw"]},
                )
            ),
        ]
        return "\n".join([*joined, *map(raised, made)])


def raised(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


@each_page(
    [
        *(ROOT / "docs" / f"{name}.md" for name in ("troubleshooting", "cluster", "dvc")),
        ROOT / EXECUTOR / "docs" / "further.md",
    ]
)
def test_messages_are_ones_that_the_code_prints(page, printed):
    wrong = []
    for message in set(messages(page)) - set(OTHERS):
        pattern = ".*".join(re.escape(part) for part in message.strip("…").split("…"))
        if not re.search(pattern, printed):
            wrong.append(message)
    assert not wrong


OTHERS = {
    "snakemake: command not found": "the shell's",
    "No remote provided and no default remote set": "DVC's; test_dvc.py",
    "… is busy": "DVC's; test_dvc.py",
}


def test_the_api_reference_has_a_text_for_everything_public():
    """A method may have its base's."""
    for name in pdoc.extract.walk_specs(["eqco"]):
        module = pdoc.doc.Module(pdoc.extract.load_module(name))
        documented = [module, *module.classes, *module.functions]
        for a_class in module.classes:
            documented += [m for m in a_class.methods if m.taken_from[0] == name]
        for what in documented:
            assert what.docstring or what.name.startswith("_"), what.fullname


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (eqco.__version__, about["license"])
