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


def answers(model: Any, batch: Mapping[str, Tensor]) -> Answers:
    """Run the model on a batch of pairs, (2B, T), the chosen sides first.

    The head only runs from the place where the first answer of the batch begins: logits are (2B, T - start, V).
    """
    labels = batch["labels"]
    trained = labels != MASKED
    start = max(int(trained.any(0).nonzero()[0]) - 1, 0)
    places = torch.arange(start, labels.shape[1] - 1, device=labels.device)
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        logits_to_keep=places,
        use_cache=False,
    ).logits
    wanted, counted = labels[:, start + 1 :], trained[:, start + 1 :]
    # Only places that are learnt from: what is masked costs neither memory nor time from here on.
    each = -torch.nn.functional.cross_entropy(logits[counted].float(), wanted[counted], reduction="none")
    owner = counted.nonzero()[:, 0]
    sums = torch.zeros(len(labels), device=each.device, dtype=each.dtype).index_add(0, owner, each)
    chosen, rejected = sums.chunk(2)
    chosen_tokens, rejected_tokens = counted.sum(1).chunk(2)
    return Answers(chosen, rejected, chosen_tokens, rejected_tokens)


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
        pairs = torch.tensor(sum(len(batch["labels"]) // 2 for batch in batches), device=device)
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
