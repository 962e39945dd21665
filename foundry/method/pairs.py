"""Pairs of answers seen by a model: the log-probability of each, and the loss that an objective makes of them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from foundry.method.tokens import MASKED


@dataclass(frozen=True)
class Answers:
    """Answers of one batch: summed log-probabilities and numbers of tokens, each (B,) for either side."""

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor


def answers(model: Any, batch: Mapping[str, Any]) -> Answers:
    """Run the model on a batch of pairs: a packed row (see `Packer`), or padded sides, (2B, T), the chosen ones first.

    The head runs only where something is learnt; of padded sides, from where the first answer of the batch begins.
    """
    logits, targets, owner = (_packed if "documents" in batch else _padded)(model, batch)
    each = -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    empty = torch.zeros(len(batch.get("documents", batch["input_ids"])), device=each.device, dtype=each.dtype)
    sums, counts = (empty.index_add(0, owner, values) for values in (each, torch.ones_like(each)))
    return Answers(*sums.chunk(2), *counts.chunk(2))


def _packed(model: Any, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, (N, V), of the N tokens that are learnt, these tokens, and the sides they belong to."""
    row = {name: batch[name] for name in ("input_ids", "position_ids", "documents")}
    logits = model(**row, logits_to_keep=batch["places"], use_cache=False).logits[0]
    return logits, batch["targets"], batch["owner"]


def _padded(model: Any, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """As `_packed`; the model makes logits for (2B, T - start)."""
    labels = batch["labels"]
    trained = labels != MASKED
    start = max(int(trained.any(0).nonzero()[0]) - 1, 0)
    places = torch.arange(start, labels.shape[1] - 1, device=labels.device)
    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits = model(**read, logits_to_keep=places, use_cache=False).logits
    wanted, counted = labels[:, start + 1 :], trained[:, start + 1 :]
    return logits[counted], wanted[counted], counted.nonzero()[:, 0]


class PairLoss:
    """The part of a TRL trainer that learns from pairs: exact under gradient accumulation, whatever the lengths.

    TRL's own mean over each small batch weighs the rows of an incomplete last one more; here a step's loss is the
    sum over its pairs divided by their number.
    """

    seen: dict[str, list[float]]
    accelerator: Any
    args: Any

    def pair_losses(self, model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each pair, (B,), and what to log of them, each (B,)."""
        raise NotImplementedError

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """Collect a step's batches, and count its pairs."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        pairs = torch.tensor(sum(len(batch["row"]) for batch in batches), device=device)
        return batches, self.accelerator.reduce(pairs, "sum")

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum the losses of the pairs and divide by the pairs of the whole step."""
        losses, numbers = self.pair_losses(model, inputs)
        for name, values in numbers.items():
            self.__dict__.setdefault("seen", defaultdict(list))[name].append(float(values.detach().float().mean()))
        if num_items_in_batch is None:
            loss = losses.mean()
        else:  # gradients are averaged over the processes, each of which divides by the pairs of all
            loss = losses.sum() * self.accelerator.num_processes / num_items_in_batch
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means of what was seen since the last time."""
        seen = self.__dict__.pop("seen", {})
        means = self.accelerator.reduce(
            torch.tensor([fmean(values) for values in seen.values()], device=self.args.device), "mean"
        )
        super().log(logs | dict(zip(seen, means.tolist(), strict=True)), start_time)  # type: ignore[misc]
