"""unsloth beside peft: SmolLM2 on the main job's rows, the same seed, 30 steps each of 4 rows; losses, not speed."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import foundry
from foundry.loading import load_model, load_tokenizer
from foundry.method.tokens import tokenise
from foundry.records import Pruned

STEPS, BATCH, EVALUATED = 30, 4, 32


class Seen:
    def __init__(self):
        self.losses = []

    def metrics(self, values, step):  # noqa: ARG002
        self.losses.append(values["loss"])


def run():
    """The first step's loss and the loss on held-out rows, for LoRA and QLoRA; None without unsloth."""
    if find_spec("unsloth") is None:
        print("parity: unsloth is not installed (make unsloth-cpu)")
        return None
    rows = []
    for method in ("lora", "qlora"):
        ours, peer = (trained(method, backend) for backend in ("unsloth", "peft"))
        for what in ("first loss", "eval loss"):
            rows.append({"what": f"{method}: {what}, unsloth", "unit": "nats", "ours": ours[what], "peer": peer[what]})
            print(rows[-1], flush=True)
    return {"name": "parity", "peer": "peft", "rows": rows}


def trained(method, backend):
    settings = [
        f"data.size={STEPS * BATCH}",
        f"data.eval_size={EVALUATED}",
        "method.logging_steps=1",
        f"method.max_steps={STEPS}",
    ]
    job = foundry.compose([*settings, f"method={method}", f"compute.batch_size={BATCH}", f"compute.backend={backend}"])
    dataset, base, machine = job.data.load(), job.model.fetch(), job.compute.machine()
    with tempfile.TemporaryDirectory() as folder:
        seen = Seen()
        pruned = Pruned(dataset.train, (), dataset.sha256, dataset.sha256)
        checkpoint = job.method.train(pruned, base, job.compute, machine, Path(folder), seen)
        assert checkpoint.backend == backend
        model = load_model(base.path, machine, checkpoint.path, job.method.adapter.quantize)
        return {
            "first loss": seen.losses[0],
            "eval loss": fmean(answer_losses(model, load_tokenizer(base.path), dataset.eval)),
        }


def answer_losses(model, tokenizer, rows):
    import torch

    with torch.no_grad():
        for row in tokenise(rows, tokenizer, 1024, pairs=False):
            batch = {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}
            yield float(model.eval()(**batch).loss)
