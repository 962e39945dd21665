"""A fused GGUF that answers like the model that was trained, ready for Ollama and llama.cpp."""

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from foundry import console
from foundry.errors import HardwareError, PublishError
from foundry.hardware import size
from foundry.lot import SHORT, digest_folder
from foundry.package import Examined, Package, Packager, convert, ollama
from foundry.package.chain import MERGED, Chain
from foundry.package.deployment import Deployment
from foundry.package.diagram import draw, stages
from foundry.package.log import log, unmet
from foundry.package.parity import Bounds, Parity
from foundry.records import BaseModel, Row
from foundry.run import clear_abandoned, sync, write_atomic, writing

PACKAGE = "package"
CHECKSUMS = "SHA256SUMS"
_SPARE = 2**26
Quantization = Literal[
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "Q2_K",
]  # fmt: skip


class Gguf(Packager):
    """Adapter into base, GGML's converter, quantisation, and the gate that each step must pass.

    Attributes:
        name: The model's name in the files and in Ollama.
        quantization: The files that are made, the Modelfile's first; none keeps the 16-bit file alone.
        precision: What weights are rounded to when the adapter is added to them.
        keep_f16: Whether the 16-bit file stays among the deliverables.
        imatrix: Whether quantisation is told how large each column's inputs are on training rows.
        imatrix_rows: How many of them.
        adapter_gguf: Whether the LoRA adapter is made a file of its own too.
        ollama: Whether `ollama create` is run, where Ollama is installed.
        system: The Modelfile's system prompt; None for that of the training rows, or of the chat template.
        temperature: The Modelfile's.
        context: Tokens of prompt and answer together, in every test.
        parity: What each step is asked, and what it must reach.
        deployment: What each file is asked as a service.
    """

    name: str = Field("student", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    quantization: tuple[Quantization, ...] = ("Q8_0",)
    precision: Literal["F16", "BF16"] = "F16"
    keep_f16: bool = False
    imatrix: bool = False
    imatrix_rows: int = Field(64, ge=1)
    adapter_gguf: bool = False
    ollama: bool = False
    system: str | None = None
    temperature: float = Field(0.0, ge=0)
    context: int = Field(2048, ge=64)
    parity: Parity = Parity(golden=("What is the capital of France?",))
    deployment: Deployment = Deployment()

    def check(self, base: BaseModel) -> None:
        """Look before training for the packages, and whether the converter knows the architecture.

        Raises:
            ConfigError: A package is not installed.
            DataError: The converter does not know the architecture.
        """
        convert.check(self.quantization, base.path)

    def package(self, examined: Examined) -> Package:
        """Write `package/`, whole or not at all; `unmet` names the first step that is not as it must be.

        Raises:
            DataError: The converter or llama.cpp does not take the model, or the adapter is for another base.
            PublishError: There is not enough disk.
        """
        run_dir, base = examined.run_dir, examined.checkpoint.base
        self.check(base)
        self._enough_disk(base.parameters, run_dir)
        clear_abandoned(run_dir, PACKAGE)
        folder = run_dir / PACKAGE
        scratch = run_dir / f".{PACKAGE}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            with writing(folder):
                scratch.mkdir()
                made = self._make(examined, scratch)
                self._describe(made, examined, scratch)
                sync(scratch)
                scratch.rename(folder)
        except HardwareError as error:
            raise PublishError(f"package: {error}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if self.ollama and not made.unmet:
            console.stage("package", f"ollama: {ollama.create(folder, self.name)}")
        console.stage("package", console.near(folder))
        files = {f"{PACKAGE}/{name}": sha for name, sha in digest_folder(folder).items()}
        return replace(made, path=folder, files=files)

    def _describe(self, made: Package, examined: Examined, folder: Path) -> None:
        """Write what people read beside the files, and the checksums of all."""
        checkpoint = examined.checkpoint
        write_atomic(folder / "eval_log.md", log(made, checkpoint, examined.verdict))
        boxes = stages(examined, made.steps, passed=not made.unmet)
        draw(boxes, f"{self.name} · lot {checkpoint.lot[:SHORT]}", folder)
        sums = "".join(f"{sha}  {name}\n" for name, sha in digest_folder(folder).items())
        write_atomic(folder / CHECKSUMS, sums)

    def _make(self, examined: Examined, folder: Path) -> Package:
        """Go through the chain, which leaves its files in the folder."""
        chain = Chain(examined, folder, self.parity, self.deployment, self.context, self.name)
        learnt = examined.learnt
        whole = chain.fused(self._prompts(learnt, examined.held_out), self.precision)
        talks = [row for row in learnt if "prompt" in row][: self.imatrix_rows]
        matrix = chain.importance(whole, talks) if self.imatrix else None
        del whole
        chain.converted(self.precision)
        full = chain.file(self.precision).stat().st_size
        for kind in self.quantization:
            if kind in convert.CONVERTED:
                chain.converted(kind)
            else:
                chain.quantised(kind, self.precision, matrix)
        if self.adapter_gguf:
            chain.adapter_alone(folder / "adapter.gguf")
        shutil.rmtree(folder / MERGED)
        if matrix:
            matrix.unlink()
        if self.quantization and not self.keep_f16:
            chain.file(self.precision).unlink()
        first = chain.file(self.quantization[0] if self.quantization else self.precision)
        system = self.system if self.system is not None else _system(learnt)
        said = ollama.write_modelfile(folder, first.name, chain.tokenizer, system, self.temperature)
        low = {measurement.name for measurement in examined.verdict.measurements if measurement.lower_is_better}
        reason = unmet(chain.steps, self._bounds(), full, examined.checkpoint.base.parameters, low)
        return Package(None, unmet=reason, steps=chain.steps, full=full, notes=[*chain.notes, f"Modelfile: {said}"])

    def _prompts(self, learnt: Sequence[Row], held_out: Sequence[Row]) -> list[Sequence[Mapping[str, Any]]]:
        """Held-out prompts, training prompts where none are held out, and the golden ones."""
        rows = [row for row in (held_out or learnt) if "prompt" in row][: self.parity.prompts]
        golden = [[{"role": "user", "content": text}] for text in self.parity.golden]
        return [*(list(row["prompt"]) for row in rows), *golden]

    def _bounds(self) -> dict[str, Bounds]:
        kinds: dict[str, Bounds] = dict.fromkeys(self.quantization, self.parity.others)
        asked = self.parity
        own = {MERGED: asked.merged, self.precision: asked.f16, "Q8_0": asked.q8_0, "Q4_K_M": asked.q4_k_m}
        return {**kinds, **own, "adapter": asked.f16}

    def _enough_disk(self, parameters: int, run_dir: Path) -> None:
        """The fused model, the 16-bit file, and each other file, which is at most as large as Q8_0.

        Raises:
            PublishError: There is not enough.
        """
        needed = int(parameters * (4 + 1.1 * len(self.quantization) + 2 * self.adapter_gguf)) + _SPARE
        free = shutil.disk_usage(run_dir).free
        if free < needed:
            raise PublishError(f"package: {run_dir}: {size(needed)} needed on disk, {size(free)} free; free some space")


def _system(rows: Sequence[Row]) -> str | None:
    """The system prompt that all training rows have."""
    first = {
        row["prompt"][0]["content"] if row["prompt"] and row["prompt"][0]["role"] == "system" else None
        for row in rows
        if "prompt" in row
    }
    return first.pop() if len(first) == 1 else None
