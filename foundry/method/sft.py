"""Supervised fine-tuning: next-token cross entropy; the loss is on the answers alone."""

from typing import Any, ClassVar

from foundry.method.tuning import Tuning
from foundry.records import Shape


class SFT(Tuning):
    """Learns the answers: a conversation's last turn, a preference's chosen side, a whole text."""

    shapes: ClassVar[frozenset[Shape]] = frozenset({"instruction", "preference", "text"})

    def _kinds(self) -> tuple[Any, Any, dict[str, Any]]:
        from trl import SFTConfig

        from foundry.method.trainers import WatchedSFT

        return WatchedSFT, SFTConfig, {"dataset_kwargs": {"skip_prepare_dataset": True}, "max_length": self.max_length}
