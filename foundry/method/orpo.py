"""ORPO: the chosen answer is learnt while its odds are raised over the rejected one's, without a reference model.

Source: Hong et al. 2024, arXiv:2403.07691.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from foundry.method.tuning import Tuning
from foundry.records import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from foundry.method.pairs import Answers


class ORPO(Tuning):
    """Odds ratio preference optimisation.

    Attributes:
        beta: Weight of the odds ratio term (the paper's λ).
    """

    shapes: ClassVar[frozenset[Shape]] = frozenset({"preference"})
    pairs: ClassVar[bool] = True
    least_gpu_memory: ClassVar[int] = 24 * 10**9  # both answers' logits are held at once

    beta: float = Field(0.1, gt=0)

    def _kinds(self) -> tuple[Any, Any, dict[str, Any]]:
        from foundry.method.trainers import ORPOConfig, WatchedORPO

        return WatchedORPO, ORPOConfig, {"beta": self.beta, "disable_dropout": False, "max_length": self.max_length}


def odds_ratio_loss(answers: "Answers", beta: float) -> "tuple[Tensor, dict[str, Tensor]]":
    """The loss of each pair, (B,): L = -log P(chosen) - beta · log sigmoid(log odds(chosen) - log odds(rejected)).

    log P is the mean over an answer's tokens (equation 1 of the paper), odds = P / (1 - P) (2), and L equations 6
    and 7.
    """
    import torch

    tiny = -1e-7  # log(1 - P) has no value at P = 1
    chosen = (answers.chosen / answers.chosen_tokens).clamp(max=tiny)
    rejected = (answers.rejected / answers.rejected_tokens).clamp(max=tiny)
    log_odds = chosen - rejected - torch.log(-torch.expm1(chosen)) + torch.log(-torch.expm1(rejected))
    ratio = torch.nn.functional.logsigmoid(log_odds)
    shown = {"nll": -chosen, "log_odds": log_odds, "accuracy": (chosen > rejected).float()}
    return -chosen - beta * ratio, shown
