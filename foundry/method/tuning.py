"""What every objective shares: settings, tokens, TRL's loop, checkpoints and the result on disk."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from foundry import console, ranks
from foundry.compute import Backend, Compute
from foundry.errors import FoundryError, HardwareError
from foundry.hardware import Machine, Needs, forget_peak, size
from foundry.loading import quantized, read_config
from foundry.method import Method, Observer, Outlook, backends
from foundry.method.adapter import Adapter
from foundry.method.kept import lengths, tokenised
from foundry.method.tokens import need_end_of_turn, need_template
from foundry.records import BaseModel, Checkpoint, Pruned
from foundry.run import write_atomic

AUDIT = "mask_audit.txt"
"""What the first batch trains and what it hides."""


class Tuning(Method):
    """An objective crossed with an adapter; the objectives are its subclasses.

    Attributes:
        adapter: The adapter to train, None to train every weight.
        learning_rate: Peak of the schedule.
        epochs: Passes over the rows, where `max_steps` is -1.
        max_steps: Optimiser steps, -1 for as many as the epochs take.
        max_length: Tokens a row may have; longer rows are cut at the end.
        warmup_ratio: Share of the steps (0 to 1) over which the rate rises.
        scheduler: How the rate falls afterwards.
        weight_decay: AdamW's.
        packing: Whether sequences lie end to end without padding, so that nothing but tokens is computed: the same
            losses and gradients. Where a model's attention cannot keep documents apart, batches are padded.
        allow_gradient_checkpointing: Whether activations are made again in the backward pass instead of being
            kept: the same result in less memory and more time.
        logging_steps: Steps between two logged losses.
        save_steps: Steps between two checkpoints to resume from.
    """

    pairs: ClassVar[bool] = False
    referenced: ClassVar[bool] = False
    least_gpu_memory: ClassVar[int] = 0

    adapter: Adapter | None = Field(default_factory=Adapter)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, ge=-1)
    max_length: int = Field(1024, ge=8)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    packing: bool = True
    allow_gradient_checkpointing: bool = False
    logging_steps: int = Field(10, ge=1)
    save_steps: int = Field(50, ge=1)

    @field_validator("max_steps")
    @classmethod
    def _some_steps(cls, steps: int) -> int:
        if steps == 0:
            raise ValueError("found 0, expected at least 1, or -1 for as many as the epochs take")
        return steps

    def check(self, config: Callable[[], Mapping[str, Any]], compute: Compute, node: Machine) -> str | None:
        """See, before anything is loaded, that the packages are here and that the node has what the objective needs.

        Raises:
            HardwareError: A package is missing; or GPU memory is, and `strict_hardware_check`.
        """
        if self.adapter is not None and self.adapter.quantize:
            from foundry.loading import need_bitsandbytes

            need_bitsandbytes()
        if compute.fsdp and ranks.world() == 1:
            raise HardwareError(
                "compute=fsdp divides the weights among several processes, and this is the only one; "
                "torchrun --nproc-per-node N -m foundry.train compute=fsdp …"
            )
        warning = backends.check(self, compute)
        if node.device == "cpu" or node.total >= self.least_gpu_memory or self.allow_gradient_checkpointing:
            return warning
        line = (
            f"Insufficient VRAM for {type(self).__name__}. Use Gradient Checkpointing or upgrade node. "
            f"{self._estimated(config, compute, node)}; {node.total / 1e9:.3g} GB there, "
            f"{self.least_gpu_memory // 10**9} GB expected; method.allow_gradient_checkpointing=true"
        )
        if self.strict_hardware_check:
            raise HardwareError(f"{line}, or method.strict_hardware_check=false to try all the same")
        return f"{line}; {warning}" if warning else line

    def _estimated(self, config: Callable[[], Mapping[str, Any]], compute: Compute, node: Machine) -> str:
        from foundry.method.memory import full_batch, needs

        try:
            estimate = needs(self, config(), compute, node, full_batch(self.max_length, compute, pairs=self.pairs))
        except FoundryError as error:
            return f"(No estimate: {error})"
        return f"About {size(estimate.total)} needed for rows of {self.max_length} tokens ({estimate.largest()})"

    def estimate(self, pruned: Pruned, base: BaseModel, compute: Compute, node: Machine) -> Needs:
        """Estimate the peak for a batch of the longest rows; see `foundry.method.memory`."""
        from foundry.loading import load_tokenizer

        return self._needs(pruned, base, compute, node, load_tokenizer(base.path))

    def _needs(self, pruned: Pruned, base: BaseModel, compute: Compute, node: Machine, tokenizer: Any) -> Needs:
        from foundry.method.memory import needs, widest_batch

        need_template(pruned.rows, tokenizer)
        kind = {"pairs": self.pairs, "packing": self.packing}
        batch = widest_batch(pruned.rows, tokenizer, self.max_length, compute, **kind)
        return needs(self, read_config(base.path), compute, node, batch)

    def outlook(
        self, pruned: Pruned, base: BaseModel, compute: Compute, node: Machine, machine: Machine | None
    ) -> Outlook:
        """Tokenise, check what is learnt, and say what training would take."""
        from foundry.loading import load_tokenizer
        from foundry.method.pace import histogram, plan

        tokenizer = load_tokenizer(base.path)
        needs = self._needs(pruned, base, compute, node, tokenizer)
        made = self._tokenised(pruned, tokenizer)
        line = plan(self, made, base, compute, machine)
        return Outlook(line, self._audit(made, pruned, tokenizer, compute), needs, histogram(lengths(made)))

    def _tokenised(self, pruned: Pruned, tokenizer: Any) -> Sequence[Any]:
        need_template(pruned.rows, tokenizer)
        made: Sequence[Any] = tokenised(pruned.rows, tokenizer, self.max_length, pairs=self.pairs)
        need_end_of_turn(made, tokenizer)
        return made

    def _audit(self, made: Sequence[Any], pruned: Pruned, tokenizer: Any, compute: Compute) -> str:
        from foundry.method.audit import mask_audit
        from foundry.method.batches import first_batch

        first = first_batch(len(made), compute.batch_size, compute.seed)
        said = [message for index in first for message in pruned.rows[index].get("prompt", ())]
        system = {message["content"] for message in said if message["role"] == "system"}
        return mask_audit([made[index] for index in first], tokenizer, system)

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
        from foundry.loading import load_tokenizer, quiet
        from foundry.method.pace import plan

        quiet()
        tokenizer = load_tokenizer(base.path)
        made = self._tokenised(pruned, tokenizer)
        write_atomic(run_dir / AUDIT, self._audit(made, pruned, tokenizer, compute))
        console.stage("train", plan(self, made, base, compute, machine))
        work = partial(self.learn, made, tokenizer, base, compute, run_dir, resume)
        ranks.share(partial(work, "peft", None))
        metrics, backend = backends.trained(work, self, compute, run_dir, observer)
        kind: Literal["adapter", "full"] = "full" if self.adapter is None else "adapter"
        held = quantized(base.path, self.adapter.quantize if self.adapter else None)
        return Checkpoint(run_dir / "model", kind, base, metrics, pruned.sha256, backend=backend, quantized=held)

    def learn(
        self,
        made: Sequence[Any],
        tokenizer: Any,
        base: BaseModel,
        compute: Compute,
        run_dir: Path,
        resume: Path | None,
        backend: Backend,
        observer: Observer | None,
    ) -> dict[str, float]:
        """Train on tokenised rows in this process, write `run_dir/model` and return the final metrics.

        Of several processes the first one writes, and has an observer.

        Raises:
            TrainingError: The loss is not finite.
        """
        from foundry.loading import quiet
        from foundry.method.trainer import fit, save

        quiet()
        machine = compute.machine()
        forget_peak(machine.device)
        with ranks.together():
            trainer = self._trainer(made, tokenizer, base, compute, machine, run_dir, backend)
            metrics = fit(trainer, machine, observer, resume)
            save(trainer, base, run_dir)
        return metrics

    @abstractmethod
    def _kinds(self) -> tuple[Any, Any, dict[str, Any]]:
        """The objective's trainer, TRL's class of its arguments, and those that are its own."""

    def _ready(self, trainer: Any, machine: Machine) -> None:
        """Do what must be done while the weights are still the base's."""

    def _trainer(
        self,
        made: Sequence[Any],
        tokenizer: Any,
        base: BaseModel,
        compute: Compute,
        machine: Machine,
        run_dir: Path,
        backend: Backend,
    ) -> Any:
        from datasets import disable_progress_bars
        from transformers import set_seed

        from foundry.method.batches import Collator, Packer

        disable_progress_bars()
        set_seed(compute.seed)
        trainer_class, arguments_class, own = self._kinds()
        model, adapter = backends.load(backend, self, base, compute, machine)
        packed = self.packing and self._packs(model)
        trainer = trainer_class(
            model=model,
            args=arguments_class(**self._arguments(compute, machine, run_dir, packed=packed), **own),
            train_dataset=made,
            processing_class=tokenizer,
            data_collator=Packer() if packed else Collator(tokenizer.pad_token_id),
            peft_config=adapter,
        )
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()  # bf16 would lose small updates
        if self.adapter is not None and self.adapter.dora:
            from foundry.method.dora import factor

            factor(trainer.model)
        self._ready(trainer, machine)
        return trainer

    def _packs(self, model: Any) -> bool:
        from foundry.method.packed import pack

        able = pack(model)
        if not able:
            console.warn(f"{type(model).__name__} cannot keep packed rows apart, so batches are padded")
        return able

    def _arguments(self, compute: Compute, machine: Machine, run_dir: Path, *, packed: bool) -> dict[str, Any]:
        """Transformers' arguments, the same for every objective."""
        return {
            "output_dir": str(run_dir / "checkpoints"),
            "per_device_train_batch_size": compute.batch_size,
            "gradient_accumulation_steps": compute.grad_accum,
            "learning_rate": self.learning_rate,
            "num_train_epochs": self.epochs,
            "max_steps": self.max_steps,
            "warmup_steps": self.warmup_ratio,  # a share of all steps while below 1
            "lr_scheduler_type": self.scheduler,
            "weight_decay": self.weight_decay,
            "bf16": machine.precision == "bf16",
            "use_cpu": machine.device == "cpu",
            "gradient_checkpointing": self.allow_gradient_checkpointing,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "dataloader_pin_memory": machine.device == "cuda",
            "remove_unused_columns": False,  # the collator takes what it needs
            "logging_steps": self.logging_steps,
            "logging_first_step": True,
            "logging_nan_inf_filter": False,
            "include_num_input_tokens_seen": "all" if packed else "non_padding",
            "save_steps": self.save_steps,
            "save_total_limit": 2,
            "fsdp": compute.fsdp,
            "fsdp_config": {"version": 2} if compute.fsdp else None,
            "ddp_find_unused_parameters": False,  # every weight that is trained is used in each step
            "seed": compute.seed,
            "data_seed": compute.seed,
            "report_to": [],
            "disable_tqdm": True,
        }
