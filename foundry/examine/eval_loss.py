"""The loss on held-out rows."""

from foundry.examine.likelihood import Likelihood


class EvalLoss(Likelihood):
    """The mean loss of the right answers' tokens, in nats a token, as training counts it; lower is better."""
