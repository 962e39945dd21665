"""A model under examination, opened when it is first asked; what it did is kept where it will be asked for again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundry.examine import Metric
from foundry.hardware import Machine
from foundry.lot import digest, digest_file, digest_folder, libraries
from foundry.records import Checkpoint, Row
from foundry.run import cache_root, write_json

_CODE = ("../generate.py", "losses.py", "harness.py", "../loading.py")
"""What decides how a model is asked, beside the settings."""
_CARD = "README.md"


class Opened:
    """A checkpoint, or the base below it.

    Args:
        checkpoint: Base and, for `adapter` and `full`, what was trained; the base is held as it was for that.
        machine: What it is computed on.
        name: What it is called on the console: `baseline`, `student`, or a parent's name.
        base: Whether the untouched base is meant.
        keep: Whether evidence is kept in the cache, by the digests of the weights, which are those of their lot.
    """

    def __init__(self, checkpoint: Checkpoint, machine: Machine, name: str, *, base: bool, keep: bool) -> None:
        own = None if base else checkpoint.path
        self.adapter = own if checkpoint.kind == "adapter" else None
        self.folder = checkpoint.base.path if self.adapter or own is None else own
        self.machine = machine
        self.held = checkpoint.quantized
        files = _weights(own) if keep and own else {}
        self._identity = {"base": checkpoint.base.sha256, "held": self.held, "files": files}
        self._name = name
        self._keep = keep
        self._model: tuple[Any, Any] | None = None
        self._found: dict[str, list[Any]] = {}

    def evidence(self, name: str, metric: Metric, rows: Sequence[Row], rows_sha256: str) -> list[Any]:
        """What the model did with the questions of a metric, from the cache if it was asked before."""
        key = digest(
            {
                **self._identity,
                "rows": [rows_sha256, digest([dict(row) for row in rows])],
                "asking": dict(metric.asking()),
                "machine": self.machine.describe(),
                "libraries": libraries(),
                "code": [digest_file(Path(__file__).parent / file) for file in _CODE],
            }
        )
        if key not in self._found:
            self._found[key] = self._asked(name, metric, rows, cache_root() / "baselines" / f"{key}.json")
        return self._found[key]

    def _asked(self, name: str, metric: Metric, rows: Sequence[Row], path: Path) -> list[Any]:
        known = _read(path) if self._keep else None
        if known is not None and (not metric.asks_rows or len(known) == len(rows)):
            return known
        found = metric.ask(self, rows, f"{self._name} {name}")
        if self._keep:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, found)
        return found

    def answers(self, rows: Sequence[Row], *, max_new_tokens: int, batch_size: int, note: str) -> list[str]:
        """Answer each row's prompt greedily."""
        from foundry import generate

        model, tokenizer = self._opened()
        return generate.answers(
            model, tokenizer, rows, self.machine, max_new_tokens=max_new_tokens, batch_size=batch_size, note=note
        )

    def losses(self, rows: Sequence[Row], *, max_length: int, batch_size: int, note: str) -> list[list[float]]:
        """The summed loss (nats) of each row's answer or text, and how many tokens it has."""
        from foundry.examine.losses import losses

        model, tokenizer = self._opened()
        return losses(model, tokenizer, rows, self.machine, max_length=max_length, batch_size=batch_size, note=note)

    def _opened(self) -> tuple[Any, Any]:
        if self._model is None:
            from foundry.loading import cast_once, load_model, load_tokenizer, quiet

            quiet()
            tokenizer = load_tokenizer(self.adapter or self.folder)
            model = load_model(self.folder, self.machine, self.adapter, self.held or None)
            cast_once(model, self.machine)
            self._model = model, tokenizer
        return self._model

    def close(self) -> None:
        """Let the model go, so that the next one has its memory."""
        self._model = None


def _weights(folder: Path) -> dict[str, str]:
    return digest_folder(folder, leave_out=(_CARD,))


def _read(path: Path) -> list[Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) else None
