"""Steps of training beside TRL's own trainers at their defaults, on SmolLM2-135M and real rows of 20 to 500 tokens.

Same rows in the same order, same adapter, rate and number of steps; the runs take turns, a step each, in one process.
TRL's defaults are batches of 8 that are padded, and gradient checkpointing. What is not in the defaults is the same on
both sides. The loss of both students on rows that neither saw is measured by the plain model.
"""

import tempfile
from pathlib import Path
from statistics import median

import torch

STEPS = 12
HELD_OUT = 24
SEED = 42  # TRL's default
CASES = {
    "SFT, LoRA": ("lora", 1e-3),
    "SFT, every weight": ("full", 2e-5),
    "ORPO, LoRA": ("orpo", 5e-5),
    "DPO, LoRA": ("dpo", 2e-5),
}


class Observer:
    """Is told of each step."""

    def __init__(self, tick):
        self.tick, self.losses = tick, []

    def metrics(self, values, step):
        self.losses.append(values["loss"])
        self.tick()


def job(method, rate, *overrides):
    import foundry

    fixed = [f"method={method}", f"method.learning_rate={rate}", f"method.max_steps={STEPS}", "method.logging_steps=1"]
    rest = ["method.scheduler=linear", "method.warmup_ratio=0", f"compute.seed={SEED}", "compute.batch_size=8"]
    outer = ["model=smollm2_135m", "examine=none", "publish=none"]
    return foundry.compose([*fixed, *rest, *outer, *overrides])


def ours(job, rows):
    from foundry.records import Pruned

    def run(tick):
        observer = Observer(tick)
        with tempfile.TemporaryDirectory() as folder:
            base = job.model.fetch()
            kept = Pruned(list(rows), (), "", "")
            made = job.method.train(kept, base, job.compute, job.compute.machine(), Path(folder), observer)
            return observer.losses, loss(base.path, made)

    return run


def peer(method, rate, rows, base, adapter):
    """TRL's trainer with its defaults."""
    from datasets import Dataset
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def __init__(self, observer):
            self.observer = observer

        def on_log(self, args, state, control, logs, **_):
            if "loss" in logs:
                self.observer.metrics(logs, state.global_step)

    def run(tick):
        import trl
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        kinds = {"orpo": (ORPOTrainer, ORPOConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}
        trainer_class, arguments_class = kinds.get(method, (trl.SFTTrainer, trl.SFTConfig))
        observer = Observer(tick)
        with tempfile.TemporaryDirectory() as folder:
            own = {"learning_rate": rate, "max_steps": STEPS, "logging_steps": 1, "report_to": [], "save_steps": 10**6}
            trainer = trainer_class(
                model=str(base.path) if method != "orpo" else opened(base.path),
                args=arguments_class(output_dir=folder, disable_tqdm=True, seed=SEED, use_cpu=True, **own),
                train_dataset=Dataset.from_list(list(rows)),
                peft_config=None if adapter is None else adapter.peft(),
                **({"processing_class": tokenizer(base.path)} if method == "orpo" else {}),
            )
            trainer.add_callback(Told(observer))
            trainer.train()
            return observer.losses, loss(base.path, trainer.model)

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
    for row in rows(8 * STEPS + HELD_OUT, folder)[-HELD_OUT:]:
        start = len(words.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False))
        ids = torch.tensor([words.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False)])
        with torch.no_grad():
            logits = student(ids).logits[0, start - 1 : -1].float()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum"))
        count += ids.shape[1] - start
    return total / count


def tokens(rows, folder):
    """Tokens of a step, padding not counted; of pairs, those of both sides."""
    words = tokenizer(folder)
    sides = [row[key] for row in rows for key in ("completion", "chosen", "rejected") if key in row]
    prompts = [row["prompt"] for row in rows for key in ("completion", "chosen", "rejected") if key in row]
    found = [words.apply_chat_template([*p, *s], return_dict=False) for p, s in zip(prompts, sides, strict=True)]
    return sum(map(len, found)) / len(rows) * 8


def measured(name, method, rate):
    from benchmarks.mixed_rows import preferences, rows
    from benchmarks.race import race

    mine = job(method, rate)
    base = mine.model.fetch()
    make = preferences if method in ("orpo", "dpo") else rows
    taken = list(make(8 * STEPS + HELD_OUT, str(base.path)))[: 8 * STEPS]
    useful = tokens(taken, base.path)
    results, times = race(
        {"ours": ours(mine, taken), "peer": peer(method, rate, taken, base, mine.method.adapter)},
    )
    ratio = median(a / b for a, b in zip(times["ours"], times["peer"], strict=True))
    speeds = {who: useful / median(seconds) for who, seconds in times.items()}
    print(name, {"ratio of steps": ratio, "useful tokens/s": speeds, "losses": {k: v[0] for k, v in results.items()}})
    yield {"what": f"{name}: step", **{who: median(found) for who, found in times.items()}, "unit": "s"}
    # as a ratio below 1 is better everywhere in the table, time a thousand useful tokens
    yield {"what": f"{name}: 1,000 useful tokens", **{w: 1000 / s for w, s in speeds.items()}, "unit": "s"}
    if method not in ("orpo", "dpo"):
        yield {
            "what": f"{name}: loss on other rows",
            **{who: found[1] for who, found in results.items()},
            "unit": "nats",
        }


def run(names=tuple(CASES)):
    found = [row for name in names for row in measured(name, *CASES[name])]
    return {"name": "training (peer: TRL's trainers, their defaults)", "rows": found}


if __name__ == "__main__":
    import sys

    for row in run(tuple(sys.argv[1:]) or tuple(CASES))["rows"]:
        print(row)
