"""Memory: the preflight's estimate beside the measured peak, each method for three steps in a process of its own.

What is measured is how much the resident set grows from before the model is opened to its peak; what is estimated
is the sum of all terms but the libraries, which are there before.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

METHODS = {
    "lora": ["method=lora"],
    "dora": ["method=dora"],
    "qlora": ["method=qlora"],
    "full": ["method=full"],
    "orpo": ["method=orpo"],
    "dpo": ["method=dpo"],
    "lora, checkpointing": ["method=lora", "method.allow_gradient_checkpointing=true"],
    "dpo, every weight": ["method=dpo", "method.adapter=null"],
}
BATCH = 4
WORDS = 100


def rows():
    """Sixteen preferences of about 150 tokens a side."""
    for number in range(16):
        question = f"{number}:" + " alpha" * WORDS
        sides = {"chosen": "yes" + " beta" * 20, "rejected": "no" + " gamma" * 20}
        yield {
            "prompt": [{"role": "user", "content": question}],
            **{key: [{"role": "assistant", "content": text}] for key, text in sides.items()},
        }


class Peak(threading.Thread):
    """The largest resident set while it runs, looked at every two milliseconds."""

    def __init__(self):
        import psutil

        super().__init__(daemon=True)
        self.process, self.running = psutil.Process(), True
        self.before = self.most = self.process.memory_info().rss

    def run(self):
        while self.running:
            self.most = max(self.most, self.process.memory_info().rss)
            time.sleep(0.002)

    def grown(self):
        self.running = False
        self.join()
        return self.most - self.before


class Unseen:
    def metrics(self, values, step):
        """Nothing is looked at."""


def measure(overrides):
    """Estimated and measured bytes of one method, in this process."""
    import foundry
    from foundry.method import trainers
    from foundry.records import Pruned

    assert trainers  # its libraries are loaded before the measurement begins
    job = foundry.compose(["model=smollm2_135m", "examine=none", "publish=none", "compute.backend=peft", *overrides])
    base, compute = job.model.fetch(), job.compute.model_copy(update={"batch_size": BATCH})
    pruned, machine = Pruned(list(rows()), (), "", ""), compute.machine()
    method = job.method.model_copy(update={"max_steps": 3})
    needs = method.estimate(pruned, base, compute, machine)
    peak = Peak()
    peak.start()
    with tempfile.TemporaryDirectory() as folder:
        method.train(pruned, base, compute, machine, Path(folder), Unseen())
    return {"estimated": needs.total - needs.terms["libraries"], "measured": peak.grown(), "terms": needs.terms}


def run():
    found = []
    for name, overrides in METHODS.items():
        command = [sys.executable, "-m", "benchmarks.bench_memory", *overrides]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        result = json.loads(said.stdout.splitlines()[-1])
        found.append(
            {
                "what": f"SmolLM2-135M, {name}: estimated beside measured peak",
                "ours": result["estimated"] / 2**20,
                "peer": result["measured"] / 2**20,
                "unit": "MiB",
            }
        )
        print(found[-1], flush=True)
    return {"name": "memory", "rows": found}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:])))
