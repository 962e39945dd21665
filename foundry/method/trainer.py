"""TRL's trainers watched step by step, and their checkpoints and results on disk."""

import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import PrinterCallback, TrainerCallback

from foundry import console
from foundry.errors import DataError, HardwareError, TrainingError
from foundry.hardware import Machine, peak_memory
from foundry.lot import is_intact, mark_intact
from foundry.method import Observer
from foundry.records import BaseModel
from foundry.safety import check_checkpoint


class Watched:
    """The part of every trainer that remembers the last loss and stops at one that is not finite."""

    last_loss = math.nan
    partial_loss = 0.0
    rows: list[int]
    is_fsdp_enabled: bool

    def create_accelerator_and_postprocess(self) -> None:
        """Have weights divided on a CPU too: torch does, but accelerate asks for it on other devices alone."""
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        args, state = self.args, self.accelerator.state  # type: ignore[attr-defined]
        if args.fsdp_plugin_args is not None and not self.is_fsdp_enabled:
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**args.fsdp_plugin_args)
            state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
            self.is_fsdp_enabled = True

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Take a step as TRL does, then look at its loss.

        Raises:
            TrainingError: It is not finite.
        """
        self.rows = inputs.pop("row").tolist()
        loss = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        if not math.isfinite(float(loss)):
            raise TrainingError(self._not_finite(float(loss), self.rows))
        self.partial_loss += float(loss)
        if self.accelerator.sync_gradients:  # type: ignore[attr-defined]
            shown = torch.tensor(self.partial_loss, device=self.args.device)  # type: ignore[attr-defined]
            self.last_loss, self.partial_loss = float(self.accelerator.reduce(shown, "mean")), 0.0  # type: ignore[attr-defined]
        return loss

    def _not_finite(self, loss: float, rows: list[int]) -> str:
        step, args = self.state.global_step + 1, self.args  # type: ignore[attr-defined]
        run_dir = Path(args.output_dir).parent
        last = newest_intact(run_dir)
        kept = f"the last good checkpoint is {last} (resume={run_dir})" if last else "there is no checkpoint yet"
        return (
            f"step {step}: the loss is {loss} on training rows {', '.join(map(str, rows))} (counted from 0); {kept}; "
            f"lower method.learning_rate={args.learning_rate}, set compute.precision=fp32, or look at these rows"
        )


class _Watcher(TrainerCallback):  # type: ignore[misc]
    """Shows progress, passes metrics on, and seals checkpoints."""

    def __init__(self, trainer: Any, observer: Observer | None) -> None:
        self.trainer = trainer
        self.observer = observer
        self.progress = console.TrainingProgress()
        self.before = 0.0
        self.started = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.before = float(state.num_input_tokens_seen or 0)
        self.started = time.perf_counter()
        self.progress.start(state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.progress.step(state.global_step, self.trainer.last_loss, self.speed(state))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:  # noqa: ARG002
        if "loss" in logs and self.observer is not None:
            numbers = {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}
            self.observer.metrics({**numbers, "tokens_per_second": self.speed(state)}, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.trainer.accelerator.wait_for_everyone()  # each process has written its random state by then
        if state.is_world_process_zero:
            mark_intact(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.progress.stop()

    def speed(self, state: Any) -> float:
        """Tokens a second since training began or went on, padding not counted."""
        return (float(state.num_input_tokens_seen or 0) - self.before) / max(time.perf_counter() - self.started, 1e-9)


def fit(trainer: Any, machine: Machine, observer: Observer | None, resume: Path | None) -> dict[str, float]:
    """Run the trainer to its end and return its final metrics.

    Raises:
        TrainingError: The loss is not finite.
        HardwareError: Memory ran out.
    """
    watcher = _Watcher(trainer, observer)
    trainer.remove_callback(PrinterCallback)  # it prints a bare dictionary
    trainer.add_callback(watcher)
    start = newest_intact(resume) if resume else None
    if start is not None:
        _need_optimizer(start, divided=trainer.is_fsdp_enabled)
    try:
        result = trainer.train(resume_from_checkpoint=str(start) if start else None)
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)):
            raise
        raise HardwareError(
            f"out of memory on {machine.device}; lower compute.batch_size and raise compute.grad_accum, "
            f"or method.allow_gradient_checkpointing=true"
        ) from error
    finally:
        watcher.progress.stop()
    return {
        "train_loss": float(result.training_loss),
        "steps": float(result.global_step),
        "train_seconds": time.perf_counter() - watcher.started,
        "tokens_per_second": watcher.speed(trainer.state),
        "peak_memory_bytes": float(peak_memory(machine.device)),
        "trainable_parameters": float(sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)),
    }


def _need_optimizer(checkpoint: Path, *, divided: bool) -> None:
    """See that the optimiser's state is there in the form that will be read: it would be begun anew in silence.

    Raises:
        DataError: It was written with divided weights and will be read without, or the reverse.
    """
    if not (checkpoint / ("optimizer.bin" if divided else "optimizer.pt")).is_file():
        raise DataError(
            f"resume: {checkpoint} has no optimiser state of a run {'with' if divided else 'without'} compute=fsdp; "
            f"go on with compute.fsdp={str(not divided).lower()}, as it was begun"
        )


def newest_intact(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run whose files are all as they were written, or None.

    Raises:
        DataError: There is no such run directory, or loading its checkpoint would run code.
    """
    if not run_dir.is_dir():
        raise DataError(f"resume: {run_dir}: there is no such run directory")
    found = [path for path in (run_dir / "checkpoints").glob("checkpoint-*") if path.name[11:].isdigit()]
    for folder in sorted(found, key=lambda path: -int(path.name[11:])):
        if is_intact(folder):
            check_checkpoint(folder)
            return folder
        console.warn(f"{folder} is broken or half-written and is passed over")
    return None


def save(trainer: Any, base: BaseModel, run_dir: Path) -> None:
    """Write the trained adapter or model with its tokenizer; `run_dir/model` appears by one rename.

    Of several processes the first one does.
    """
    options = _gathered(trainer)
    if not trainer.accelerator.is_main_process:
        return
    scratch = run_dir / ".model.part"
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "peft_config"):
        options["save_embedding_layers"] = False  # never trained here; looking whether they were asks the hub
        for adapter in model.peft_config.values():
            adapter.base_model_name_or_path = base.name
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch, **options)
    trainer.processing_class.save_pretrained(scratch)
    (scratch / "README.md").unlink(missing_ok=True)  # peft's empty card; ours follows the examination
    scratch.rename(run_dir / "model")


def _gathered(trainer: Any) -> dict[str, Any]:
    """The option of `save_pretrained` for weights that the processes divided among them: all of them, whole."""
    if not trainer.is_fsdp_enabled:
        return {}
    whole = trainer.accelerator.get_state_dict(trainer.model)
    for tied in getattr(trainer.model, "all_tied_weights_keys", {}):
        whole.pop(tied, None)  # it is there under the name that it is tied to
    return {"state_dict": whole}
