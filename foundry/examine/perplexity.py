"""The perplexity on held-out rows."""

from collections.abc import Sequence
from dataclasses import replace

from foundry.examine import Score
from foundry.examine.likelihood import Likelihood, Losses
from foundry.records import Row


class Perplexity(Likelihood):
    """e to the power of the mean loss of the right answers' tokens (1 or more); lower is better.

    It depends on the tokenizer: only models that share one can be compared.
    """

    def score(self, rows: Sequence[Row], evidence: Losses) -> Score:
        """The mean loss a token, exponentiated."""
        return replace(super().score(rows, evidence), exponential=True)
