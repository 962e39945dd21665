"""Training beside TRL's own trainers at their defaults, on SmolLM2-135M and real rows of 20 to 500 tokens.

Same rows in the same order, same adapter, rate, batch and steps; the runs take turns (see `race`). TRL's defaults are
padded batches and gradient checkpointing; of ours, packing and none. Both multiply in bf16.
"""

import tempfile
from pathlib import Path
from statistics import median

import torch

STEPS = 6
"""Of which the first is not timed."""
HELD_OUT = 24
SEED = 42  # TRL's default


class Observer:
    """Is told of each step."""

    def __init__(self, tick):
        self.tick, self.losses = tick, []

    def metrics(self, values, step):  # noqa: ARG002
        self.losses.append(values["loss"])
        self.tick()


def job(method, rate, batch=8):
    import foundry

    fixed = [f"method={method}", f"method.learning_rate={rate}", f"method.max_steps={STEPS}", "method.logging_steps=1"]
    rest = [
        "method.scheduler=linear",
        "method.warmup_ratio=0",
        f"compute.seed={SEED}",
        f"compute.batch_size={batch}",
        "compute.threads=1",
    ]
    outer = ["model=smollm2_135m", "examine=none", "publish=none"]
    return foundry.compose([*fixed, *rest, *outer])


def ours(job, rows, scored=False):
    from foundry.records import Pruned

    def run(tick):
        observer = Observer(tick)
        with tempfile.TemporaryDirectory() as folder:
            base = job.model.fetch()
            kept = Pruned(list(rows), (), "", "")
            made = job.method.train(kept, base, job.compute, job.compute.machine(), Path(folder), observer)
            return observer.losses, loss(base.path, made) if scored else None

    return run


def peer(method, job, rows, scored):
    """TRL's trainer with its defaults."""
    from datasets import Dataset
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def __init__(self, observer):
            self.observer = observer

        def on_log(self, args, state, control, logs, **_):  # noqa: ARG002
            if "loss" in logs:
                self.observer.metrics(logs, state.global_step)

    def run(tick):
        import trl
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        kinds = {"orpo": (ORPOTrainer, ORPOConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}
        trainer_class, arguments_class = kinds.get(method, (trl.SFTTrainer, trl.SFTConfig))
        observer = Observer(tick)
        with tempfile.TemporaryDirectory() as folder:
            base, adapter = job.model.fetch(), job.method.adapter
            rate, batch = job.method.learning_rate, job.compute.batch_size
            own = {
                "learning_rate": rate,
                "per_device_train_batch_size": batch,
                "max_steps": STEPS,
                "logging_steps": 1,
                "report_to": [],
                "save_steps": 10**6,
            }
            trainer = trainer_class(
                model=str(base.path) if method != "orpo" else opened(base.path),
                args=arguments_class(output_dir=folder, disable_tqdm=True, seed=SEED, use_cpu=True, **own),
                train_dataset=Dataset.from_list(list(rows)),
                peft_config=None if adapter is None else adapter.peft(),
                **({"processing_class": tokenizer(base.path)} if method == "orpo" else {}),
            )
            trainer.add_callback(Told(observer))
            trainer.train()
            return observer.losses, loss(base.path, trainer.model) if scored else None

    return run


def opened(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def tokenizer(folder):
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(folder)
    made.pad_token = made.pad_token or made.unk_token or made.eos_token
    return made


def loss(folder, student):
    """Mean cross entropy of the answers of rows that were not trained on, by the plain model, a row at a time."""
    from peft import PeftModel

    from benchmarks.mixed_rows import rows

    if not isinstance(student, torch.nn.Module):
        student = (
            opened(student.path) if student.kind == "full" else PeftModel.from_pretrained(opened(folder), student.path)
        )
    words, total, count = tokenizer(folder), 0.0, 0
    student.eval()
    for row in rows(8 * STEPS + HELD_OUT, str(folder))[-HELD_OUT:]:
        start = len(words.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False))
        ids = torch.tensor([words.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False)])
        with torch.no_grad():
            logits = student(ids).logits[0, start - 1 : -1].float()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum"))
        count += ids.shape[1] - start
    return total / count


def tokens(rows, folder):
    """Tokens of a row, padding not counted; of a pair, those of both sides."""
    words = tokenizer(folder)
    sides = [row[key] for row in rows for key in ("completion", "chosen", "rejected") if key in row]
    prompts = [row["prompt"] for row in rows for key in ("completion", "chosen", "rejected") if key in row]
    found = [words.apply_chat_template([*p, *s], return_dict=False) for p, s in zip(prompts, sides, strict=True)]
    return sum(map(len, found)) / len(rows)


def measured(name, method, rate, batch=8):
    """Rows of figures: a step, a thousand useful tokens, and of SFT the loss of both on rows that neither saw."""
    from benchmarks.mixed_rows import preferences, rows
    from benchmarks.race import race

    mine = job(method, rate, batch)
    folder = mine.model.fetch().path
    pairs = method in ("orpo", "dpo")
    taken = list((preferences if pairs else rows)(batch * STEPS + HELD_OUT, str(folder)))[: batch * STEPS]
    useful = tokens(taken, folder) * batch / 1000
    results, times = race({"ours": ours(mine, taken, not pairs), "peer": peer(method, mine, taken, not pairs)})
    ratio = median(a / b for a, b in zip(times["ours"], times["peer"], strict=True))
    print(name, ratio, times, {who: found[0] for who, found in results.items()}, flush=True)
    figures = {"ours": ratio * median(times["peer"]), "peer": median(times["peer"])}
    yield {"what": f"{name}: step (median of ratios)", **figures, "unit": "CPU s"}
    each = {who: median(seconds) / useful for who, seconds in times.items()}
    yield {"what": f"{name}: 1,000 useful tokens", **each, "unit": "CPU s"}
    if not pairs:
        yield {
            "what": f"{name}: loss on other rows",
            **{who: found[1] for who, found in results.items()},
            "unit": "nats",
        }
