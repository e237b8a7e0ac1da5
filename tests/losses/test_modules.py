"""The modules against plain formulas, two ranks against one process, and what they import."""

import math
import re
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from helpers import ROOT, cold
from packaging.requirements import Requirement
from torch import Tensor

from eqco.losses import DCLLoss, DualTemperatureLoss, EqCoLoss

LOSSES = {
    "eqco": lambda **gather: EqCoLoss(256, 0.2, **gather),
    "dcl": lambda **gather: DCLLoss(0.2, **gather),
    "dual temperature": lambda **gather: DualTemperatureLoss(0.1, 1.0, **gather),
}
N, D, K = 6, 5, 9


def plain(name: str, s0: float, s: list[float]) -> float:
    """A loss of one anchor, of similarities as numbers."""

    def total(tau: float) -> float:
        return sum(math.exp(x / tau) for x in s)

    if name == "eqco":  # the negatives' sum times α/K
        return math.log(1 + 256 / len(s) * total(0.2) / math.exp(s0 / 0.2))
    if name == "dcl":
        return math.log(total(0.2)) - s0 / 0.2
    weight = total(1.0) / (math.exp(s0) + total(1.0))
    return weight * (math.log(total(0.1)) - s0 / 0.1)


def draw(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2 * N + K, D, generator=generator, dtype=torch.float64)
    return rows[:N], rows[N : 2 * N], rows[2 * N :]


def cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.detach(), b.detach()
    return float(a @ b / (a @ a).sqrt() / (b @ b).sqrt())


@pytest.mark.parametrize("name", LOSSES)
def test_all_views_are_anchors_and_all_views_of_other_images_negatives(name):
    z0, z1, _ = draw()
    expected = []
    for views in ((z0, z1), (z1, z0)):
        for i in range(N):
            others = [view[j] for view in views for j in range(N) if j != i]
            s = [cosine(views[0][i], other) for other in others]
            expected.append(plain(name, cosine(views[0][i], views[1][i]), s))
    loss = LOSSES[name]()(z0, z1)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(sum(expected) / (2 * N), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_with_a_queue_the_queries_are_anchors_and_its_keys_the_negatives(name):
    q, k, queue = (x.requires_grad_() for x in draw())
    expected = [
        plain(name, cosine(q[i], k[i]), [cosine(q[i], key) for key in queue]) for i in range(N)
    ]
    loss = LOSSES[name]()(q, k, queue)
    assert loss.item() == pytest.approx(sum(expected) / N, rel=1e-12)
    loss.backward()
    assert q.grad.any()
    assert queue.grad is None


@pytest.mark.parametrize("name", ["eqco", "dcl"])  # the dual temperature holds its weight constant
def test_both_views_get_the_gradient_of_finite_differences(name):
    z0, z1, queue = draw()
    views = z0.requires_grad_(), z1.requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name](), views)
    assert torch.autograd.gradcheck(LOSSES[name](), (*views, queue))


def test_low_precision_gives_float32():
    z0, z1, queue = (x.bfloat16() for x in draw())
    for loss in LOSSES.values():
        assert loss()(z0, z1).dtype == loss()(z0, z1, queue).dtype == torch.float32


@pytest.mark.parametrize("form", ["batch", "queue"])
@pytest.mark.parametrize("name", LOSSES)
def test_under_autocast_value_and_gradient_are_those_of_float32(name, form):
    def step(precision: torch.dtype | None) -> tuple[Tensor, Tensor]:
        z0, z1, queue = (x.float() for x in draw())
        more = [queue] if form == "queue" else []
        with torch.autocast("cpu", precision, enabled=precision is not None):
            loss = LOSSES[name]()(z0.requires_grad_(), z1, *more)
        loss.backward()
        return loss.detach(), z0.grad

    (found, gradient), (expected, plain) = step(torch.bfloat16), step(None)
    assert found.dtype == gradient.dtype == torch.float32
    # similarities are at most 1, so bfloat16 rounds them by 2⁻⁹ at most; the temperature is ≥ 0.1
    torch.testing.assert_close(found, expected, atol=2 * 2**-9 / 0.1, rtol=0)
    torch.testing.assert_close(gradient, plain, atol=0.05 * plain.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(6, 5), (5, 5)], r"(N, D) of one shape; got (6, 5), (5, 5)"),
        ([(6,), (6,)], r"(N, D) of one shape; got (6,), (6,)"),
        ([(1, 5), (1, 5)], r"at least 2 images, as others are the negatives; got 1"),
        ([(6, 5), (6, 5), (9, 4)], r"a queue (K ≥ 1, 5); got (9, 4)"),
        ([(6, 5), (6, 5), (0, 5)], r"a queue (K ≥ 1, 5); got (0, 5)"),
        ([(6, 5), (6, 5), (9,)], r"a queue (K ≥ 1, 5); got (9,)"),
    ],
)
def test_wrong_shapes_are_errors(shapes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DCLLoss(0.2)(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EqCoLoss(0, 0.2), "α > 0, finite; got 0"),
        (lambda: EqCoLoss(math.inf, 0.2), "α > 0, finite; got inf"),
        (lambda: EqCoLoss(256, 0), "τ > 0; got 0"),
        (lambda: DCLLoss(math.nan), "τ > 0; got nan"),
        (lambda: DualTemperatureLoss(inter=-1), "τ > 0; got -1"),
    ],
)
def test_settings_out_of_range_are_errors(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def gradients(name: str, form: str, rows: slice, *, ddp: bool) -> dict[str, Tensor]:
    """Loss and gradients of a linear encoder, of some rows of the batch."""
    torch.manual_seed(0)
    encoder = torch.nn.Linear(D, D, dtype=torch.float64)
    model = torch.nn.parallel.DistributedDataParallel(encoder) if ddp else encoder
    x0, x1, queue = draw(seed=1)
    z0, z1 = model(torch.cat([x0[rows], x1[rows]])).chunk(2)
    loss = LOSSES[name](gather=True)(z0, z1, *([queue] if form == "queue" else []))
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad for n, p in encoder.named_parameters()}}


CASES = [(name, form) for name in LOSSES for form in ("batch", "queue")]


def as_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    half = slice(rank * N // 2, (rank + 1) * N // 2)
    torch.save([gradients(*case, half, ddp=True) for case in CASES], folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_under_ddp_give_the_loss_and_gradient_of_one_process(tmp_path):
    torch.multiprocessing.start_processes(as_rank, (tmp_path,), nprocs=2, start_method="forkserver")
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for i, case in enumerate(CASES):
        for key, value in gradients(*case, slice(None), ddp=False).items():
            for rank in (0, 1):
                torch.testing.assert_close(
                    found[rank][i][key], value, rtol=1e-6, atol=1e-12, msg=f"{case} {key}"
                )


# refuses what the package itself imports; torch may import what it likes
BLOCKED = """
import builtins, sys
real = builtins.__import__
def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__") or ""
    top = name.partition(".")[0]
    if importer.partition(".")[0] == "eqco" and level == 0:
        if top not in {"eqco", "torch", *sys.stdlib_module_names}:
            raise ImportError(f"{importer} imports {name}")
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = guarded
"""


def readme_lines() -> str:
    text = (ROOT / "README.md").read_text().partition("\n## The losses alone\n")[2]
    return re.search(r"^```python\n(.*?)^```$", text, re.M | re.S)[1]


def run(program: str, python: Path | str = sys.executable, **more) -> subprocess.CompletedProcess:
    command = [str(python), "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def test_the_losses_run_beside_torch_and_the_standard_library_alone():
    done = run(BLOCKED + readme_lines() + "loss.backward()", env=cold(ROOT))
    assert done.returncode == 0, done.stderr
    refused = run(BLOCKED + "import eqco.commands.cli", env=cold(ROOT))
    assert "ImportError: eqco.commands.cli imports typer" in refused.stderr


def closure(name: str) -> dict[str, Distribution]:
    """A distribution and all that it requires here, by name."""
    found, waiting = {}, [name]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = distribution(name)
        for line in found[name].requires or []:
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


@pytest.mark.slow
def test_a_wheel_without_its_dependencies_gives_the_losses_beside_torch(tmp_path):
    pip = (sys.executable, "-m", "pip")
    quiet = ("-q", "--no-deps", "--disable-pip-version-check")
    wheel = [*pip, "wheel", *quiet, "-w", str(tmp_path), str(ROOT)]
    subprocess.run(wheel, check=True)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    packages = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    for found in closure("torch").values():  # torch as it stands here, without its neighbours
        for file in {path.parts[0] for path in found.files if ".." not in path.parts}:
            if not (packages / file).exists():
                (packages / file).symlink_to(found.locate_file(file))
    (built,) = tmp_path.glob("eqco-*.whl")
    subprocess.run([*pip, "--python", str(python), "install", *quiet, str(built)], check=True)
    environment = cold(tmp_path)
    lines = readme_lines() + "print(eqco.losses.__file__)"
    done = run("import eqco.losses\n" + lines, python, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert str(packages) in done.stdout
    assert (packages / "eqco" / "py.typed").exists()
    refused = run("import pydantic", python, cwd=tmp_path, env=environment)
    assert "ModuleNotFoundError" in refused.stderr  # so it is torch alone
