"""Backends: what opens the base, puts the adapter on it and computes its steps: unsloth, or transformers with peft."""

import io
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry import console
from foundry.compute import Backend, Compute
from foundry.errors import HardwareError
from foundry.hardware import Machine
from foundry.method import Observer
from foundry.ranks import world
from foundry.records import BaseModel

if TYPE_CHECKING:
    from foundry.method.tuning import Tuning

Work = Callable[[Backend, Observer | None], Mapping[str, float]]
"""Trains with a backend and returns the final metrics; another process can be handed it."""


def unfit(method: "Tuning") -> str | None:
    """Why unsloth does not train this method here, as far as that shows without importing it; None if it does."""
    if world() > 1:
        return "several processes train together"
    if method.pairs:
        return f"unsloth has no kernels for the loss of {type(method).__name__}"
    if method.adapter is not None and method.adapter.dora:
        return "unsloth has no kernels for DoRA"
    if sys.platform == "darwin":
        return "on a Mac unsloth trains with MLX, and not through TRL"
    if find_spec("unsloth") is None or find_spec("unsloth_zoo") is None:
        return "unsloth is not installed (pip install 'model-foundry[unsloth]'; without a GPU, make unsloth-cpu)"
    return None


def check(method: "Tuning", compute: Compute) -> str | None:
    """See whether the backend asked for can be had, before anything is loaded; a warning where it is peft after all.

    Raises:
        HardwareError: It is unsloth, and that cannot be.
    """
    reason = None if compute.backend == "peft" else unfit(method)
    return reason and _peft_instead(compute, reason)


def trained(work: Work, method: "Tuning", compute: Compute, run_dir: Path, observer: Observer) -> tuple[Any, Backend]:
    """Do the work with the backend that `compute` asks for; its metrics, and which backend it was.

    Raises:
        FoundryError: As the work does; HardwareError where it must be unsloth, and that cannot be imported.
    """
    if compute.backend != "peft" and unfit(method) is None:
        from foundry.method.apart import CannotImportError, apart

        try:
            return apart(work, run_dir, observer, compute.device), "unsloth"
        except CannotImportError as error:
            console.warn(_peft_instead(compute, f"unsloth cannot be imported: {error}"))
    return work("peft", observer), "peft"


def _peft_instead(compute: Compute, reason: str) -> str:
    if compute.backend == "unsloth":
        raise HardwareError(f"compute.backend=unsloth: {reason}; or take compute.backend=peft")
    return f"compute.backend=auto is peft: {reason}; compute.backend=peft does not look for unsloth"


def load(backend: Backend, method: "Tuning", base: BaseModel, compute: Compute, machine: Machine) -> tuple[Any, Any]:
    """Open the base; the model, and the LoraConfig that its trainer is to put on it, if any is left to be put.

    Raises:
        DataError: The weights are broken or do not fit their config.
    """
    adapter = method.adapter
    if backend == "unsloth":
        return _with_unsloth(method, base, compute, machine), None
    from foundry.loading import load_model

    model = load_model(base.path, machine, quantize=adapter.quantize if adapter else None)
    return model, None if adapter is None else adapter.peft()


def _with_unsloth(method: "Tuning", base: BaseModel, compute: Compute, machine: Machine) -> Any:
    """The base and its adapter as unsloth makes them, at the precision that `load_model` takes."""
    from unsloth import FastLanguageModel

    from foundry.loading import read_config, weights_dtype

    adapter = method.adapter
    checkpointing = "unsloth" if method.allow_gradient_checkpointing else False
    four = bool(adapter and adapter.quantize) or "quantization_config" in read_config(base.path)
    with redirect_stdout(io.StringIO()):  # it says what it opened
        model, _ = FastLanguageModel.from_pretrained(
            str(base.path),
            max_seq_length=method.max_length,
            dtype=weights_dtype(machine),
            load_in_4bit=four,
            full_finetuning=adapter is None,
            use_gradient_checkpointing=checkpointing,
            trust_remote_code=False,
            local_files_only=True,
        )
    if adapter is None:
        return model
    return FastLanguageModel.get_peft_model(
        model,
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets),
        use_rslora=adapter.rslora,
        use_gradient_checkpointing=checkpointing,
        random_state=compute.seed,
    )
