"""Opening models and tokenizers from local folders: safetensors only, no code from the model, no network."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from foundry.errors import DataError
from foundry.hardware import Machine


def quiet() -> None:
    """Keep transformers' advice and progress bars off the terminal; its warnings still go to the log."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """Open the tokenizer of a model folder.

    Raises:
        DataError: It is broken, or has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise DataError(f"{folder}: the tokenizer cannot be read: {_first(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def load_model(base: Path, machine: Machine, adapter: Path | None = None) -> Any:
    """Open a base model, with an adapter merged into it if one is given.

    On a CPU the weights are fp32, with bf16 used inside matrix products (see `autocast`): that is a third
    faster there than bf16 weights, whose elementwise operations are slow. On a GPU they are in the
    machine's precision.

    Raises:
        DataError: The weights are broken or do not fit their config.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    half = machine.precision == "bf16" and machine.device != "cpu"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=torch.bfloat16 if half else torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter, local_files_only=True).merge_and_unload()
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{adapter or base}: the weights cannot be loaded: {_first(error)}") from error
    return model.to(machine.device)


def autocast(machine: Machine) -> AbstractContextManager[Any]:
    """The context in which forward passes run at the machine's precision."""
    import torch

    if machine.precision == "bf16":
        return torch.autocast(machine.device, torch.bfloat16)
    return nullcontext()


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
