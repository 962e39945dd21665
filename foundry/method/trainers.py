"""TRL's trainers with what foundry adds: watching, tokens made by us, and losses that accumulate exactly."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor
from torch.utils.data import DataLoader
from trl import DPOTrainer, SFTTrainer
from trl.trainer import sft_trainer

from foundry.method.batches import head_chunk
from foundry.method.dpo import preference_loss
from foundry.method.kept import totals
from foundry.method.orpo import odds_ratio_loss
from foundry.method.pairs import PairLoss, answers
from foundry.method.trainer import Watched

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it is experimental; its version is pinned
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

__all__ = ["ORPOConfig", "WatchedDPO", "WatchedORPO", "WatchedSFT"]


class WatchedSFT(Watched, SFTTrainer):  # type: ignore[misc]
    """Cross entropy of the labels, divided by the labels of the whole step."""

    def __init__(self, *, train_dataset: Any, args: Any, **options: Any) -> None:
        _, trained = totals(train_dataset)
        batch = trained / len(train_dataset) * args.per_device_train_batch_size
        sft_trainer._CHUNKED_LM_HEAD_CHUNK_SIZE = head_chunk(batch)  # noqa: SLF001  # there is no argument for it
        super().__init__(train_dataset=train_dataset, args=args, **options)


class WatchedORPO(Watched, PairLoss, ORPOTrainer):  # type: ignore[misc]
    """The odds ratio loss; the prompt is not in it, where TRL's own learns the chosen side's prompt too."""

    def __init__(self, model: Any, peft_config: Any = None, **options: Any) -> None:
        # TRL would hold embeddings and norms of a 4-bit base in fp32 here, and the adapter in bf16.
        super().__init__(model=get_peft_model(model, peft_config) if peft_config else model, **options)
        self.model_accepts_loss_kwargs = True  # the loss is divided by the step's pairs already

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:  # noqa: ARG002
        """Leave rows as they are: they are tokens."""
        return feature

    def pair_losses(self, model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each pair, (B,)."""
        return odds_ratio_loss(answers(model, batch), self.beta)


class WatchedDPO(Watched, PairLoss, DPOTrainer):  # type: ignore[misc]
    """The DPO loss; the reference is the model without its adapter, or numbers taken before the first step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.model_accepts_loss_kwargs = True  # the loss is divided by the step's pairs already
        self.references: Tensor | None = None

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def pair_losses(self, model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each pair, (B,)."""
        if self.references is None:
            reference = self._without_adapter(model, batch)
        else:
            reference = self.references[self.rows].to(batch["input_ids"].device)
        return preference_loss(answers(model, batch), reference, self.beta)

    def _without_adapter(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        # Not in eval mode: bitsandbytes would repack 4-bit weights on a CPU, and then has no gradients for them.
        with torch.no_grad(), self.accelerator.unwrap_model(model).disable_adapter():
            found = answers(model, batch)
        return torch.stack([found.chosen, found.rejected], 1)

    def remember_reference(self, autocast: Any) -> None:
        """Take every row's reference log-probabilities, (N, 2), while the weights are still the base's."""
        loader = DataLoader(
            self.train_dataset, batch_size=self.args.per_device_train_batch_size, collate_fn=self.data_collator
        )
        taken = []
        self.model.eval()
        with torch.no_grad(), autocast:
            for batch in loader:
                found = answers(self.model, self._prepare_inputs(batch))
                taken.append(torch.stack([found.chosen, found.rejected], 1).float().cpu())
        self.references = torch.cat(taken)
