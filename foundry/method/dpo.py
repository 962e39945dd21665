"""DPO: the chosen answer is raised over the rejected one, measured against the model that training began with.

Source: Rafailov et al. 2023, arXiv:2305.18290.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from foundry.method.tuning import Tuning
from foundry.records import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from foundry.hardware import Machine
    from foundry.method.pairs import Answers


class DPO(Tuning):
    """Direct preference optimisation; with an adapter, the reference is the base without it.

    Attributes:
        beta: How hard the student is held to the reference: the higher, the nearer it stays.
    """

    shapes: ClassVar[frozenset[Shape]] = frozenset({"preference"})
    pairs: ClassVar[bool] = True
    referenced: ClassVar[bool] = True

    beta: float = Field(0.1, gt=0)

    def _kinds(self) -> tuple[Any, Any, dict[str, Any]]:
        from trl import DPOConfig

        from foundry.method.trainers import WatchedDPO

        # TRL would open a second copy of the model; without an adapter, numbers taken beforehand do.
        options = {"beta": self.beta, "disable_dropout": False, "max_length": self.max_length}
        return WatchedDPO, DPOConfig, options

    def _ready(self, trainer: Any, machine: "Machine") -> None:
        from foundry.loading import autocast

        if self.adapter is None:
            trainer.remember_reference(autocast(machine))


def preference_loss(answers: "Answers", reference: "Tensor", beta: float) -> "tuple[Tensor, dict[str, Tensor]]":
    """The loss of each pair, (B,): equation 7 of the paper, -log sigmoid(beta · (chosen's log ratio - rejected's)).

    Args:
        answers: The student's log-probabilities.
        reference: The reference's, (B, 2), chosen and rejected.
        beta: As in `DPO`.
    """
    import torch

    chosen, rejected = answers.chosen - reference[:, 0], answers.rejected - reference[:, 1]
    margin = beta * (chosen - rejected)
    shown = {"margin": margin, "accuracy": (margin > 0).float(), "chosen_gain": chosen, "rejected_gain": rejected}
    return -torch.nn.functional.logsigmoid(margin), shown
