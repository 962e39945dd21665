"""Whether a parent has the vocabulary, the special tokens and the template of its base."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry import console
from foundry.errors import DataError
from foundry.lot import digest_file

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_TEMPLATE = "chat_template.jinja"


def same_vocabulary(folder: Path, base: Path, key: str) -> None:
    """See that a parent that brings a tokenizer has the base's words and special tokens under the same numbers.

    Args:
        folder: The parent's.
        base: The base's.
        key: The setting that names the parent, for messages.

    Raises:
        DataError: It has not.
    """
    for name in ("tokenizer.json", "tokenizer.model"):
        ours, theirs = base / name, folder / name
        if not (ours.is_file() and theirs.is_file()) or digest_file(ours) == digest_file(theirs):
            continue
        if name == "tokenizer.model":
            raise DataError(f"{key}: {theirs} differs from the base's; parents must share one vocabulary")
        expected, found = _words(ours), _words(theirs)
        if expected != found:
            wrong = min(set(expected.items()) ^ set(found.items()), key=lambda one: (one[1], one[0]))
            raise DataError(
                f"{key}: {theirs}: another vocabulary than the base's ({len(found):,} words, {len(expected):,} there; "
                f"the first that differs is number {wrong[1]}, {wrong[0]!r}); parents must share one vocabulary"
            )
    ours_special, theirs_special = _special(base), _special(folder)
    for name in ours_special.keys() & theirs_special.keys():
        if ours_special[name] != theirs_special[name]:
            raise DataError(
                f"{key}: {folder}: {name} is {theirs_special[name]!r}, the base's is {ours_special[name]!r}; "
                "parents must share their special tokens"
            )


def same_template(folder: Path, base: Path, key: str) -> None:
    """Warn of a parent that learnt with another chat template: the fused model gets the base's."""
    ours, theirs = base / _TEMPLATE, folder / _TEMPLATE
    if ours.is_file() and theirs.is_file() and digest_file(ours) != digest_file(theirs):
        console.warn(f"{key}: {folder} has another chat template; the fused model gets the base's")


def _words(path: Path) -> dict[str, int]:
    """Every word and added token by its number."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = told["model"]["vocab"]
        words = vocabulary if isinstance(vocabulary, dict) else {word: i for i, (word, *_) in enumerate(vocabulary)}
        return {**words, **{token["content"]: token["id"] for token in told.get("added_tokens", ())}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a tokenizer that can be read ({error})") from None


def _special(folder: Path) -> Mapping[str, str]:
    try:
        told: Mapping[str, Any] = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return {k: v["content"] if isinstance(v, dict) else v for k, v in told.items() if k in _SPECIAL and v}
    except (OSError, ValueError, AttributeError, KeyError):
        return {}
