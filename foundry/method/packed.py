"""Attention of documents that lie end to end in one row: each sees itself alone, and no padding is computed.

Linear layers, norms and embeddings take the row as it is; only attention has to keep documents apart. transformers
does so by a mask of the whole row, whose cost grows with the square of a batch's tokens. Here attention runs document
by document with the causal kernel, so that a row costs what its documents cost.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "foundry_packed"
"""What the attention is registered as. It has no mask of its own there, so that transformers builds none."""

Documents = tuple[tuple[tuple[int, int], ...], ...]
"""Of each document the stretches of the row, [start, stop), that it reads; the last one is its own. Own stretches fill
the row from left to right, so that a document may read a prompt that an earlier one holds."""

_SEEN = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers that let a document be seen alone, as `layer_types` of a config names them."""


class NotPackedError(Exception):
    """A model's attention was not told of documents."""


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: Tensor | None, documents: Any = None, **options: Any
) -> tuple[Tensor, None]:
    """Causal attention within each document.

    Args:
        module: The attention layer.
        query: (1, heads, T, width); key and value likewise, with as many heads as they have.
        key: See query.
        value: See query.
        _mask: Not looked at; documents say what is seen.
        documents: See `Documents`.
        options: As transformers gives them to its own attention, a sliding window among them.

    Returns:
        (1, T, heads, width), and no weights.

    Raises:
        NotPackedError: The model does not hand `documents` on.
    """
    if documents is None:
        raise NotPackedError
    made = []
    for spans in documents:
        sides = [_read(side, spans) for side in (query, key, value)]
        window = _window(sides[0].shape[2], options.get("sliding_window"), query.device)
        found, _ = sdpa_attention_forward(module, *sides, window, **options)
        start, stop = spans[-1]
        made.append(found[:, start - stop :])
    return torch.cat(made, 1), None


def _read(side: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
    parts = [side[:, :, start:stop] for start, stop in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _window(length: int, size: int | None, device: torch.device) -> Tensor | None:
    """What a sliding window lets each place see, (length, length); None while it is as long as the document."""
    if size is None or length <= size:
        return None
    place = torch.arange(length, device=device)
    behind = place[:, None] - place
    return (behind >= 0) & (behind < size)


def pack(model: Any) -> bool:
    """Have a model take packed rows, where it can; else it is left as it was.

    Whether it can is tried out: two short documents with one prompt must come out of one row as they do apart.

    Args:
        model: A causal language model of transformers, before an adapter is put on it.
    """
    config = model.config.get_text_config()
    before = config._attn_implementation  # noqa: SLF001  # there is no public way to ask
    if before != "sdpa" or not _SEEN.issuperset(getattr(config, "layer_types", None) or ()):
        return False
    AttentionInterface.register(NAME, attention)
    if getattr(model, "is_loaded_in_4bit", False):
        model.train()  # bitsandbytes repacks weights at a forward pass in eval mode on a CPU, and then has no gradients
    prompt, first, second = [5, 9, 7, 6], [8, 5, 9], [6, 6, 8, 7]
    apart = [_last(model, [*prompt, *ending]) for ending in (first, second)]
    model.set_attn_implementation(NAME)
    try:
        packed = _states(model, [*prompt, *first, *second], [*range(7), *range(4, 8)], (((0, 7),), ((0, 4), (7, 11))))
    except (NotPackedError, TypeError):
        packed = None
    if packed is not None and all(_near(packed[at], one) for at, one in zip((6, 10), apart, strict=True)):
        return True
    model.set_attn_implementation(before)
    return False


def _last(model: Any, ids: list[int]) -> Tensor:
    return _states(model, ids, list(range(len(ids))), None)[-1]


def _states(model: Any, ids: list[int], positions: list[int], documents: Documents | None) -> Tensor:
    """Logits of each place, (T, V)."""
    row = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions])}
    told = {} if documents is None else {"documents": documents}
    with torch.no_grad(), torch.random.fork_rng():
        found = model(**{name: values.to(model.device) for name, values in row.items()}, use_cache=False, **told)
    logits: Tensor = found.logits[0].float()
    return logits


def _near(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding in bf16; a document that sees another's tokens is far off."""
    return bool((one - other).norm() < 0.03 * other.norm())
