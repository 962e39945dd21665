"""The Modelfile of a packaged file, and handing it to Ollama where that is installed."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from foundry import console
from foundry.errors import PublishError
from foundry.package import modelfile
from foundry.run import write_atomic

MODELFILE = "Modelfile"


def write_modelfile(folder: Path, model: str, tokenizer: Any, system: str | None, temperature: float) -> str:
    """Write and read back a Modelfile; returns what there is to say about it.

    Args:
        folder: Where the file lies.
        model: The file's name.
        tokenizer: Its chat template is told as Ollama's, where that is possible.
        system: The system prompt; None for the one that the template itself would put.
        temperature: Of sampling.
    """
    told = modelfile.template(tokenizer)
    stops = [str(tokenizer.eos_token)]
    prompt = system if system is not None else modelfile.default_system(tokenizer)
    text = modelfile.write(model, told, prompt, stops, {"temperature": temperature})
    modelfile.parse(text)
    write_atomic(folder / MODELFILE, text)
    if told is None:
        return "its template cannot be told in Ollama's words; Ollama takes the one in the file"
    talk = [{"role": r, "content": f"{r} speaks"} for r in ("system", "user", "assistant", "user")]
    expected = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    same = modelfile.rendered(told, talk) == expected.removeprefix(tokenizer.bos_token or "") or (
        modelfile.rendered(told, talk) == expected
    )
    assert same, "modelfile.template gives only what renders the same"  # noqa: S101
    return "its template renders conversations as the chat template does"


def create(folder: Path, name: str) -> str:
    """Run `ollama create`; where Ollama is not installed, say so.

    Raises:
        PublishError: Ollama does not take it.
    """
    program = shutil.which("ollama")
    if program is None:
        console.warn("ollama is not installed here; the Modelfile was checked against its grammar")
        return "not installed"
    done = subprocess.run(  # noqa: S603
        [program, "create", name, "-f", MODELFILE], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise PublishError(f"ollama create {name}: {lines[-1] if lines else f'ended with {done.returncode}'}")
    return f"created {name}"
