"""What a student has lost of what its base knew."""

from typing import ClassVar

from foundry.examine.likelihood import Likelihood
from foundry.source import Source


class Forgetting(Likelihood):
    """How far the loss on a reference set lies above the untouched base's, in nats a token; lower is better.

    0 for the base itself, and below 0 for a model that does better than it. Multiplied with 100 it is, while small,
    by how many per cent the perplexity rose. Whatever the baseline is, both are compared with the untouched base.

    Attributes:
        data: The reference set: rows of what should not be lost, apart from what is learnt.
    """

    relative: ClassVar[bool] = True

    data: Source
