"""Compute: the device, precision, batch and seed of a job."""

from typing import Literal

from pydantic import Field

from foundry.config import Component
from foundry.hardware import Machine, detect, planned

Backend = Literal["unsloth", "peft"]
"""What opens a model for training and computes its steps."""


class Compute(Component):
    """How a job is computed.

    Attributes:
        device: `auto` takes CUDA, then MPS, then the CPU.
        precision: `auto` takes bf16 where the device multiplies it faster than fp32.
        batch_size: Rows a device takes at a time.
        grad_accum: Batches summed into one step; `batch_size × grad_accum` rows make a step.
        seed: Seed of everything random in training.
        threads: CPU threads, None for every core.
        device_memory_gb: The preflight plans for a node with so much memory (GB, 10⁹ bytes), a GPU unless `device`
            says otherwise; None plans for this machine.
        backend: `auto` takes unsloth where it is installed and trains the method, else peft with a warning.
        fsdp: Whether the processes that torchrun starts divide the weights among them (FSDP2).
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    batch_size: int = Field(8, ge=1)
    grad_accum: int = Field(1, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)
    threads: int | None = Field(None, ge=1)
    device_memory_gb: float | None = Field(None, gt=0)
    backend: Literal["auto", "unsloth", "peft"] = "auto"
    fsdp: bool = False

    def machine(self) -> Machine:
        """Look the device up.

        Raises:
            HardwareError: It is not here.
        """
        return detect(self.device, self.precision, self.threads)

    def node(self) -> Machine:
        """The machine that the preflight plans for: this one, unless `device_memory_gb` describes another.

        Raises:
            HardwareError: The device asked for is not here.
        """
        if self.device_memory_gb is None:
            return self.machine()
        return planned(self.device, self.precision, self.threads, self.device_memory_gb)
