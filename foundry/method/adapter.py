"""Low-rank adapters: LoRA, DoRA, rsLoRA and QLoRA.

Sources: Hu et al. 2021, arXiv:2106.09685; Liu et al. 2024, arXiv:2402.09353; Kalajdzievski 2023, arXiv:2312.03732;
Dettmers et al. 2023, arXiv:2305.14314.
"""

from typing import Any, Literal

from pydantic import Field

from foundry.config import Settings


class Adapter(Settings):
    """The update of a weight W of shape (out, in) is `alpha / rank · B A`, B (out, rank), A (rank, in).

    Attributes:
        rank: Rank of the update.
        alpha: Its scale, divided by the rank.
        dropout: Share of the adapter's inputs dropped while training (0 to 1).
        targets: `all-linear` for every linear layer but the head, or names of layers.
        rslora: Whether alpha is divided by the rank's square root instead, so that high ranks learn as fast.
        dora: Whether the magnitude of W's rows is learnt apart from their direction.
        quantize: `nf4` keeps the frozen base in 4 bits (QLoRA), None at the machine's precision.
    """

    rank: int = Field(16, ge=1, le=4096)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = "all-linear"
    rslora: bool = False
    dora: bool = False
    quantize: Literal["nf4"] | None = None

    def peft(self) -> Any:
        """The same as a peft LoraConfig."""
        from peft import LoraConfig, TaskType

        return LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
            use_rslora=self.rslora,
            use_dora=self.dora,
        )
