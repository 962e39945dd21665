"""The steps from a student to its files, each asked what the student was asked."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foundry import console, gguf_header
from foundry.deliverables import Agreement, likeness
from foundry.loading import load_model, load_tokenizer
from foundry.package import Examined, adapter, convert, deployment, imatrix
from foundry.package.deployment import Deployment
from foundry.package.fuse import fuse, student
from foundry.package.llama import Llama
from foundry.package.parity import Parity, compare, in_llama, in_transformers, probe
from foundry.records import Answerer, Row

STUDENT = "student"
MERGED = "merged"


@dataclass
class Chain:
    """What the steps share, and what they have come to so far.

    Attributes:
        examined: The student and its job.
        folder: Where files are written.
        parity: What each step is asked.
        tests: What each file is asked as a service.
        context: Tokens of prompt and answer in llama.cpp.
        name: The model's name in the files.
        steps: What the steps came to.
        notes: What else there is to say.
    """

    examined: Examined
    folder: Path
    parity: Parity
    tests: Deployment
    context: int
    name: str
    steps: list[Agreement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Open the tokenizer."""
        self.checkpoint, self.machine, self.judge = self.examined.checkpoint, self.examined.machine, self.examined.judge
        self.tokenizer = load_tokenizer(self.checkpoint.path)
        self._probes: list[Any] = []

    def file(self, kind: str) -> Path:
        """Where the file of this kind lies."""
        return self.folder / f"model-{kind}.gguf"

    def fused(self, prompts: Sequence[Sequence[Mapping[str, Any]]], precision: str) -> Any:
        """Ask the student, fuse it, and ask what came of it; returns that model, in fp32."""
        model = student(self.checkpoint, self.machine)
        new, places = self.parity.max_new_tokens, self.parity.places
        self._probes = probe(model, self.tokenizer, prompts, new, places)
        scores = {measurement.name: measurement.measured for measurement in self.examined.verdict.measurements}
        self.steps.append(Agreement(STUDENT, metrics=scores))
        with self._timed() as took:
            merged = fuse(model, self.checkpoint, self.folder / MERGED, precision)
        del model
        whole = load_model(merged.path, replace(self.machine, precision="fp32")).eval()
        told = in_transformers(whole, self.tokenizer, new)
        found = compare(MERGED, self._probes, told, self.parity.tie)
        self._reached(STUDENT, found, self.judge(merged), took[0])
        return whole

    def importance(self, model: Any, rows: Sequence[Row]) -> Path:
        """The importance matrix from training rows."""
        to = self.folder / "imatrix.safetensors"
        seen = imatrix.write(model, self.tokenizer, rows, to, self.context)
        self.notes.append(f"importance matrix from {len(rows):,} training rows, {seen:,} tokens")
        return to

    def converted(self, kind: str) -> None:
        """A file by GGML's converter, and what it answers."""
        with self._timed() as took:
            convert.convert(self.folder / MERGED, self.file(kind), kind, self.name)
        self._asked(kind, MERGED, took[0])

    def quantised(self, kind: str, source: str, matrix: Path | None) -> None:
        """A file by llama.cpp's quantiser, and what it answers."""
        with self._timed() as took:
            convert.quantise(self.file(source), self.file(kind), kind, matrix, self.machine.threads)
        self._asked(kind, source, took[0])

    def adapter_alone(self, to: Path) -> None:
        """The adapter's own file, asked on the base's file, which is made for this and goes away again."""
        obstacle = adapter.obstacle(self.checkpoint)
        if obstacle:
            self.notes.append(f"no adapter file: {obstacle}")
            console.warn(f"package.adapter_gguf: {obstacle}")
            return
        base = self.folder / "base.gguf"
        with self._timed() as took:
            adapter.write_adapter(self.checkpoint.path, self.checkpoint.base.path, to)
        convert.convert(self.checkpoint.base.path, base, "F16", self.name)
        self._asked("adapter", STUDENT, took[0], Llama(base, **self._served(), adapter=to), size_of=to)
        base.unlink()

    def _asked(
        self, kind: str, after: str, seconds: float, llama: Llama | None = None, size_of: Path | None = None
    ) -> None:
        """Check a file's header and ask it, in llama.cpp, all that the student was asked."""
        file = size_of or self.file(kind)
        gguf_header.read(file)
        with llama or Llama(file, **self._served()) as served:
            told = in_llama(served, self.tokenizer, self.parity.max_new_tokens)
            found = compare(kind, self._probes, told, self.parity.tie)
            metrics = self.judge(_Served(served))
            tests = deployment.run(self.tests, served)
        self._reached(after, replace(found, size=file.stat().st_size, tests=tests), metrics, seconds)

    def _served(self) -> dict[str, Any]:
        return {"threads": self.machine.threads, "context": self.context}

    def _reached(self, after: str, found: Agreement, metrics: Mapping[str, float], seconds: float) -> None:
        self.steps.append(replace(found, after=after, metrics=metrics, seconds=seconds))
        console.stage("package", likeness(found))

    @contextmanager
    def _timed(self) -> Iterator[list[float]]:
        """Seconds spent inside, in the list, once it is left."""
        took: list[float] = []
        begun = time.perf_counter()
        yield took
        took.append(time.perf_counter() - begun)


class _Served(Answerer):
    """A file in llama.cpp as the examination asks it."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama

    def answers(self, rows: Sequence[Row], *, max_new_tokens: int, batch_size: int, note: str) -> list[str]:  # noqa: ARG002
        """Answer one row after the other."""
        return [self._llama.answer(row["prompt"], max_new_tokens).text for row in console.track(rows, "package", note)]
