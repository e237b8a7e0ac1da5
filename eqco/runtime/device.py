"""The device that a command computes on, and its abilities."""

import ctypes
import os

import torch

from eqco.errors import InputError
from eqco.runtime import gpus


def claim(name: str, threads: int | None, ranks: int) -> torch.device:
    """Claim the device that a command's options name, and set the number of CPU threads.

    A GPU chosen by ``auto`` is this process's until the process ends.

    Args:
        name: torch's name of the device, or ``auto``: a GPU that no other cell uses, if there is
            any.
        threads: CPU threads per node, shared by its ranks.
        ranks: GPUs that the command was given; 0 means the CPU.

    Raises:
        InputError: if there is no such device, or torch cannot use the GPUs of the machine.
    """
    if threads:
        torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    if name == "auto" and (ranks == 0 or not torch.cuda.is_available()):
        if ranks and gpus.count():
            raise InputError(
                f"--device: auto: torch {torch.__version__} sees no GPU, but one is here: "
                f"{versions()}; --device cpu trains without one"
            )
        return torch.device("cpu")
    try:
        if name == "auto":
            return _free_gpu()
        device = torch.empty(0, device=name).device  # cuda is cuda:0, which NCCL asks for
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device: {name}: {str(error).splitlines()[0]}") from None
    return device


def _free_gpu() -> torch.device:
    count = torch.cuda.device_count()
    if count == 1:  # a scheduler's choice, or the only one
        return torch.device("cuda", 0)
    names = [str(torch.cuda.get_device_properties(i).uuid) for i in range(count)]
    return torch.device("cuda", gpus.claim(names))


def versions() -> str:
    """The CUDA versions that torch is built for and that the driver is for, in words."""
    cuda, newest = torch.version.cuda, driver()
    allows = f"the driver is for CUDA {newest}" if newest else "no driver is found"
    return f"it is built for {f'CUDA {cuda}' if cuda else 'CPUs'}, {allows}"


def driver() -> str | None:
    """The newest CUDA version that the installed NVIDIA driver is for; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))  # 13020 is 13.2
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether a processor computes in bfloat16 instead of emulating it; true of every GPU."""
    able = torch.cpu.get_capabilities()
    names = ("avx512_bf16", "amx_bf16", "bf16")  # the last is ARM's
    return device.type != "cpu" or any(able.get(name, False) for name in names)
