"""A sentence-transformers model run by transformers alone: little padding, bf16 products where they are fast."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from foundry.errors import ConfigError, DataError
from foundry.hardware import Machine
from foundry.loading import PACKAGE, autocast, packaged, quiet
from foundry.lot import digest, digest_file, inside
from foundry.prune.embedder import Embedder
from foundry.safety import check_model, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TOKENS = 4096
"""Tokens of a batch, padding included. What a text's vector is does not depend on it."""

_WANTED = ["*.safetensors", "*.json"]
_BF16_SLACK = 0.005
"""Beside fp32, cosines of MiniLM's vectors are at most 0.0035 off (4.5 million pairs of questions)."""


class SentenceModel(Embedder):
    """A folder of safetensors weights, tokenizer.json, and modules Transformer, Pooling (mean or cls), Normalize."""

    def __init__(self, folder: Path, machine: Machine, name: str) -> None:
        self._folder, self.name = folder, name
        self._tokenizer: Any = None
        self._model: Any = None
        self._pooling = _pooling(folder)
        self._window, self._lower = _window(folder)
        weights = {path.name: digest_file(path) for path in sorted(folder.glob("*.safetensors"))}
        if not weights:
            raise DataError(f"{folder}: no *.safetensors; expected a sentence-transformers model with such weights")
        self._content = [weights, digest_file(folder / "tokenizer.json"), self._pooling, self._window, self._lower]
        self._run_on(machine)

    def _run_on(self, machine: Machine) -> None:
        self._machine = machine
        self.digest = digest([*self._content, machine.precision])
        self.slack = _BF16_SLACK if machine.precision == "bf16" else 1e-5

    def exact(self) -> Self:
        """The same model in fp32; it shares the weights, which are fp32 anyway."""
        if self._machine.precision == "fp32":
            return self
        other = copy(self)
        other._run_on(replace(self._machine, precision="fp32"))  # noqa: SLF001
        return other

    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Embed texts; one longer than the model's window gets the mean of its windows' vectors, by their tokens."""
        import numpy as np

        if self._model is None:
            self._tokenizer, self._model = _load(self._folder, self._window, self._machine)
        encoded = self._tokenizer.encode_batch([text.lower() for text in texts] if self._lower else list(texts))
        owned = [(row, part.ids) for row, whole in enumerate(encoded) for part in (whole, *whole.overflowing)]
        owned.sort(key=lambda part: len(part[1]))
        out = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        start = 0
        while start < len(owned):
            stop = _stop(owned, start)
            rows, ids = zip(*owned[start:stop], strict=True)
            weights = np.array([len(part) for part in ids], np.float32)[:, None]
            np.add.at(out, list(rows), self._pooled(ids) * weights)
            start = stop
        return out

    def _pooled(self, ids: Sequence[Sequence[int]]) -> "NDArray[np.float32]":
        """One forward pass: B rows of at most T token ids → unit vectors (B, D)."""
        import torch

        longest = max(map(len, ids))
        pad = self._model.config.pad_token_id or 0
        tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
        tokens, mask = tokens.to(self._machine.device), mask.to(self._machine.device)
        with torch.inference_mode(), autocast(self._machine):
            states = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()  # (B, T, D)
            if self._pooling == "cls":
                pooled = states[:, 0]
            else:
                pooled = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        unit: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return unit


def _stop(owned: Sequence[tuple[int, Sequence[int]]], start: int) -> int:
    """Where the batch that begins at `start` ends: parts rise in length, the last one sets what all are padded to."""
    stop = start + 1
    while stop < len(owned) and (stop + 1 - start) * len(owned[stop][1]) <= _TOKENS:
        stop += 1
    return stop


def _load(folder: Path, window: int, machine: Machine) -> tuple[Any, Any]:
    import torch
    from safetensors import SafetensorError
    from tokenizers import Tokenizer
    from transformers import AutoModel

    quiet()
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        model = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{folder}: the embedder cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(window)
    return tokenizer, model.to(machine.device).eval()


def find(name: str, revision: str | None) -> Path:
    """The folder that a name stands for: `package://<import name>/<folder>`, a local folder, or a hub id.

    Raises:
        ConfigError: The package is not installed or there is no such model.
    """
    if name.startswith(PACKAGE):
        try:
            folder = packaged(name)
        except LookupError as error:
            raise ConfigError(f"prune.embedder: {error}, or prune=exact") from None
        if not folder.is_dir():
            raise ConfigError(f"prune.embedder: {name!r}: expected a folder inside the package")
        return folder
    return Path(name) if Path(name).is_dir() else _downloaded(name, revision)


def _downloaded(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"prune.embedder: {name!r} is no folder here, and the hub did not give it ({reason})"
        ) from None


def _pooling(folder: Path) -> Literal["mean", "cls"]:
    """How token states become one vector, as modules.json and the pooling module's config say.

    Raises:
        DataError: The model has other modules, or pools otherwise.
    """
    modules = _json(folder / "modules.json")
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0]["path"]:
        raise DataError(f"{folder}: its modules are {', '.join(kinds)}; expected Transformer, Pooling and Normalize")
    if not inside(str(modules[1]["path"])):
        raise DataError(f"{folder / 'modules.json'}: {modules[1]['path']!r}: expected a folder inside the model")
    config = _json(folder / modules[1]["path"] / "config.json")
    ways = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    ways = ways or [f"pooling_mode_{config.get('pooling_mode', '')}"]
    if ways == ["pooling_mode_mean_tokens"] or ways == ["pooling_mode_mean"]:
        return "mean"
    if ways == ["pooling_mode_cls_token"] or ways == ["pooling_mode_cls"]:
        return "cls"
    raise DataError(f"{folder}: pools by {', '.join(ways)}; expected mean or cls pooling")


def _window(folder: Path) -> tuple[int, bool]:
    """How many tokens the model takes at once, and whether texts are lowercased first."""
    check_model(folder)
    config = _json(folder / "config.json")
    path = folder / "sentence_bert_config.json"
    own = _json(path) if path.is_file() else {}
    limit = int(config.get("max_position_embeddings", 512)) - (2 if config.get("model_type") == "xlm-roberta" else 0)
    return min(int(own.get("max_seq_length") or limit), limit), bool(own.get("do_lower_case"))


def _json(path: Path) -> Any:
    return read_json(path, "a sentence-transformers model")
