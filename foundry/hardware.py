"""What this machine has, what a job needs, and the preflight that compares the two before anything loads."""

import ctypes
import gc
import platform
import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from foundry.errors import HardwareError
from foundry.ranks import local

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["bf16", "fp32"]
GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """The device that a job runs on.

    Attributes:
        device: Where tensors live.
        precision: What matrix products are computed in; bf16 means autocast over fp32 sums.
        threads: CPU threads that torch uses.
        name: The processor's or the GPU's name.
        memory: Bytes that are free on the device, for each of the processes that share it.
        total: Bytes that the device has.
    """

    device: Device
    precision: Precision
    threads: int
    name: str
    memory: int
    total: int

    def describe(self) -> dict[str, Any]:
        """What the lot records of the machine: what can change a result, not what is free just now."""
        return {key: value for key, value in asdict(self).items() if key not in {"memory", "total"}}


def detect(device: str, precision: str, threads: int | None) -> Machine:
    """Settle `auto` settings and look the machine up.

    Raises:
        HardwareError: The device asked for is not here.
    """
    import torch

    available: list[Device] = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device != "auto" and device not in available:
        raise HardwareError(
            f"compute.device={device}: not on this machine; here: {', '.join(available)} (compute=auto)"
        )
    chosen: Device = available[0] if device == "auto" else device  # type: ignore[assignment]
    settled: Precision = precision if precision != "auto" else ("bf16" if _fast_bf16(chosen) else "fp32")  # type: ignore[assignment]
    everything = _every_thread()
    threads = threads or everything
    torch.set_num_threads(threads)
    number, sharing = local()
    if chosen == "cuda":
        torch.cuda.set_device(number)
    free = free_memory(chosen) // (1 if chosen == "cuda" else sharing)
    return Machine(chosen, settled, threads, _device_name(chosen), free, total_memory(chosen))


@cache
def _every_thread() -> int:
    """The threads that torch takes of itself, before any job sets its own: the next job of a sweep has them again."""
    import torch

    count: int = torch.get_num_threads()
    return count


def planned(device: str, precision: str, threads: int | None, memory_gb: float) -> Machine:
    """A node that one does not sit at: with `auto` a GPU of so many GB (10⁹ bytes), all of them free."""
    chosen: Device = "cuda" if device == "auto" else device  # type: ignore[assignment]
    settled: Precision = "bf16" if precision == "auto" else precision  # type: ignore[assignment]
    memory = int(memory_gb * 10**9)
    return Machine(chosen, settled, threads or 1, f"a planned node of {memory_gb:g} GB", memory, memory)


def _fast_bf16(device: Device) -> bool:
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able: Mapping[str, Any] = torch.cpu.get_capabilities()
    return device == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _device_name(device: Device) -> str:
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine())


def free_memory(device: Device) -> int:
    """Bytes free on the device; the container's limit counts where it is lower."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        return min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):
        return free


def total_memory(device: Device) -> int:
    """Bytes that the device has, used or not."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[1])
    import psutil

    return int(psutil.virtual_memory().total)


def forget_peak(device: Device) -> None:
    """Let `peak_memory` count from now on, as each job of a sweep must, where the system lets it."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux alone has it: 5 sets the high-water mark back to what is held now
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def give_back() -> None:
    """Hand the memory of what is no longer used back to the system, so that a sweep's jobs all begin with as much.

    glibc keeps what was freed for later, more than a gigabyte after training a model of half a gigabyte, and the next
    job's peak would have it on top. What is left, the libraries above all, need not be looked through again: that takes
    most of a collection's time, and trainers collect several times a job.
    """
    gc.collect()
    gc.freeze()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory(device: Device) -> int:
    """The most bytes that this process has held on the device, since `forget_peak` if that was called."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@dataclass(frozen=True)
class Needs:
    """What a job needs of the device's memory.

    Attributes:
        terms: Estimated bytes by what they are for.
        smaller: Settings that need less, each as overrides with the estimated bytes of the whole job, the
            gentlest first.
    """

    terms: Mapping[str, int]
    smaller: Sequence[tuple[str, int]] = ()

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.terms.values())

    def largest(self) -> str:
        """The two largest terms in words."""
        ranked = sorted(self.terms.items(), key=lambda term: -term[1])[:2]
        return ", ".join(f"{name} {size(count)}" for name, count in ranked)


def preflight(needs: Needs, machine: Machine, *, strict: bool, folder: Path, disk: int) -> str | None:
    """Compare what a job needs with what is free.

    Args:
        needs: Estimated bytes of memory.
        machine: Where it would run.
        strict: Whether too little memory stops the job or only warns.
        folder: Where the run writes.
        disk: Bytes it will write.

    Returns:
        A warning, or None when the job fits.

    Raises:
        HardwareError: Too little memory and `strict`, or too little disk.
    """
    enough_disk(folder, disk)
    if needs.total <= machine.memory:
        return None
    line = (
        f"about {size(needs.total)} of {machine.device} memory needed ({needs.largest()}), "
        f"{size(machine.memory)} free; {_fitting(needs, machine.memory)}"
    )
    if strict:
        raise HardwareError(f"{line}; method.strict_hardware_check=false tries all the same")
    return line


def enough_disk(folder: Path, disk: int) -> None:
    """See that so many bytes are free on the disk of a folder.

    Raises:
        HardwareError: They are not.
    """
    free = shutil.disk_usage(folder).free
    if free < disk:
        raise HardwareError(f"{folder.absolute()}: {size(disk)} needed on disk, {size(free)} free; free some space")


def enough_memory(count: int, machine: Machine, what: str) -> None:
    """See that so many bytes of memory are free on a machine.

    Args:
        count: How many.
        machine: Which has them free, or not.
        what: What they are for, as in `to open the base`.

    Raises:
        HardwareError: They are not.
    """
    if count > machine.memory:
        raise HardwareError(
            f"about {size(count)} of {machine.device} memory needed {what}, {size(machine.memory)} free; "
            "take a smaller model or another node"
        )


def _fitting(needs: Needs, free: int) -> str:
    """The settings that would fit, at most three of them."""
    fit = [f"{overrides} ({size(count)})" for overrides, count in needs.smaller if count <= free][:3]
    if fit:
        return f"what would fit: {'; or '.join(fit)}"
    least = min(needs.smaller, key=lambda option: option[1], default=None)
    tried = f", the least needs {size(least[1])} ({least[0]})" if least else ""
    return f"no batch size, checkpointing or 4-bit base fits{tried}; take a smaller model or another node"


def size(count: float) -> str:
    """Bytes for a person: `1.5 GiB`, `270 MiB`, `12 KiB`."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"
