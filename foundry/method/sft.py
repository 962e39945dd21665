"""Supervised fine-tuning through TRL's SFTTrainer; the loss is on the answers alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from foundry.compute import Compute
from foundry.errors import DataError
from foundry.hardware import Machine
from foundry.method import Method, Observer
from foundry.method.adapter import Adapter
from foundry.method.rows import longest
from foundry.records import BaseModel, Checkpoint, Pruned, Shape

LIBRARIES = 700 * 2**20
"""Bytes that Python, torch, transformers and trl hold before a model is loaded."""


class SFT(Method):
    """Next-token cross entropy on completions, with an adapter or on every weight.

    Attributes:
        adapter: The adapter to train, None to train every weight.
        learning_rate: Peak of the schedule.
        epochs: Passes over the rows, where `max_steps` is -1.
        max_steps: Optimiser steps, -1 for as many as the epochs take.
        max_length: Tokens a row may have; longer rows are cut at the end.
        warmup_ratio: Share of the steps (0 to 1) over which the rate rises.
        scheduler: How the rate falls afterwards.
        weight_decay: AdamW's.
        logging_steps: Steps between two logged losses.
        save_steps: Steps between two checkpoints to resume from.
    """

    shapes: ClassVar[frozenset[Shape]] = frozenset({"instruction", "text"})

    adapter: Adapter | None = Field(default_factory=Adapter)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, ge=-1)
    max_length: int = Field(1024, ge=8)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    logging_steps: int = Field(10, ge=1)
    save_steps: int = Field(50, ge=1)

    @field_validator("max_steps")
    @classmethod
    def _some_steps(cls, steps: int) -> int:
        if steps == 0:
            raise ValueError("found 0, expected at least 1, or -1 for as many as the epochs take")
        return steps

    def estimate(self, pruned: Pruned, base: BaseModel, compute: Compute, machine: Machine) -> dict[str, int]:
        """Estimate the peak: weights, adapter, gradients, AdamW's two moments, activations, logits.

        Activations are those that a Llama block keeps for its backward pass, for a batch of the longest
        rows; the logits are TRL's chunked ones, of at most 256 answer tokens at a time.
        """
        config = json.loads((base.path / "config.json").read_text(encoding="utf-8"))
        hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
        inner = int(config.get("intermediate_size", 4 * hidden))
        width = 2 if machine.precision == "bf16" and machine.device != "cpu" else 4
        trainable = base.parameters
        if self.adapter is not None:
            trainable = self.adapter.rank * layers * (7 * 2 * hidden + 3 * max(inner - hidden, 0))
        tokens = compute.batch_size * longest(pruned.rows, base.path, self.max_length)
        return {
            "libraries": LIBRARIES,
            "weights": base.parameters * width,
            "adapter": 0 if self.adapter is None else trainable * 4,
            "gradients": trainable * 4,
            "optimiser": trainable * 8,
            "activations": layers * tokens * (14 * hidden + 8 * inner) * 4,
            "logits": min(256, tokens) * int(config["vocab_size"]) * 4 * 3,
        }

    def train(
        self,
        pruned: Pruned,
        base: BaseModel,
        compute: Compute,
        machine: Machine,
        run_dir: Path,
        observer: Observer,
        resume: Path | None = None,
    ) -> Checkpoint:
        """Train with TRL and write `run_dir/model`.

        Raises:
            DataError: The tokenizer has no chat template, or a row has nothing to learn.
            TrainingError: The loss is not finite.
        """
        from foundry.method.trainer import fit, save

        trainer = self._trainer(pruned, base, compute, machine, run_dir)
        metrics = fit(trainer, machine, observer, resume)
        path = save(trainer, base, run_dir)
        kind: Literal["adapter", "full"] = "full" if self.adapter is None else "adapter"
        return Checkpoint(path, kind, base, metrics, pruned.sha256)

    def _trainer(self, pruned: Pruned, base: BaseModel, compute: Compute, machine: Machine, run_dir: Path) -> Any:
        from datasets import Dataset, disable_progress_bars
        from transformers import set_seed

        from foundry.loading import load_model, load_tokenizer, quiet
        from foundry.method.trainer import WatchedSFTTrainer

        quiet()
        disable_progress_bars()
        set_seed(compute.seed)
        tokenizer = load_tokenizer(base.path)
        conversational = "prompt" in pruned.rows[0]
        if conversational and not tokenizer.chat_template:
            raise DataError(
                f"{base.path}: the tokenizer has no chat template; expected one, the rows are conversations"
            )
        return WatchedSFTTrainer(
            model=load_model(base.path, machine),
            args=self._arguments(compute, machine, run_dir, completion_only=conversational),
            train_dataset=Dataset.from_list([dict(row) for row in pruned.rows]),
            processing_class=tokenizer,
            peft_config=None if self.adapter is None else self.adapter.peft(),
        )

    def _arguments(self, compute: Compute, machine: Machine, run_dir: Path, *, completion_only: bool) -> Any:
        from trl import SFTConfig

        options: Mapping[str, Any] = {
            "output_dir": str(run_dir / "checkpoints"),
            "per_device_train_batch_size": compute.batch_size,
            "gradient_accumulation_steps": compute.grad_accum,
            "learning_rate": self.learning_rate,
            "num_train_epochs": self.epochs,
            "max_steps": self.max_steps,
            "warmup_steps": self.warmup_ratio,  # a share of all steps while below 1
            "lr_scheduler_type": self.scheduler,
            "weight_decay": self.weight_decay,
            "max_length": self.max_length,
            "completion_only_loss": completion_only,
            "bf16": machine.precision == "bf16",
            "use_cpu": machine.device == "cpu",
            "gradient_checkpointing": False,
            "dataloader_pin_memory": machine.device == "cuda",
            "logging_steps": self.logging_steps,
            "logging_first_step": True,
            "logging_nan_inf_filter": False,
            "include_num_input_tokens_seen": "non_padding",
            "save_steps": self.save_steps,
            "save_total_limit": 2,
            "seed": compute.seed,
            "data_seed": compute.seed,
            "report_to": [],
            "disable_tqdm": True,
        }
        return SFTConfig(**options)
